import { existsSync, mkdirSync, readdirSync, realpathSync, rmSync } from 'node:fs'
import { mkdir, open, rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { systemClock, type Clock } from '#core/clock.ts'
import { Fault } from '#core/fault.ts'
import type { Logger } from '#sys/log.ts'
import { run, runOk } from '#sys/process.ts'
import { mountPoints } from './mount-table.ts'

export interface VolumesOptions {
  dir: string
  log: Logger
  clock?: Clock
}

export interface Volumes {
  /** Makes the file and its file system. VOL-2: 1 to 500 GB; the bytes are taken when they are written. */
  create(volume: { id: string; sizeGb: number; fstype: 'ext4' | 'raw' }): Promise<void>
  /** Mounts the volume; the path on the host. VOL-8: `lost+found` at its root, which root owns. */
  mount(id: string): Promise<string>
  /** Fault `conflict` when something still uses it. */
  unmount(id: string): Promise<void>
  /** Unmounts it and removes its data for ever. */
  destroy(id: string): Promise<void>
  /** The ids of all volumes on this host. */
  list(): string[]
}

const idPattern = /^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$/
const sizeGbMax = 500
const gibibyte = 1024 ** 3
const commandTimeoutMs = 60_000
/** A machine's last process may still be on its way out when its volume is unmounted. */
const busyAttemptsMax = 6

/** Opens the folder of volumes and finishes removals that were cut short. */
export function openVolumes(options: VolumesOptions): Volumes {
  const clock = options.clock ?? systemClock
  mkdirSync(options.dir, { recursive: true, mode: 0o700 })
  // The kernel names mounts by their real path.
  const dir = realpathSync(options.dir)
  for (const name of readdirSync(dir)) {
    if (name.endsWith('.gone')) rmSync(join(dir, name), { recursive: true, force: true })
  }
  const turns = new Map<string, Promise<unknown>>()

  /** The verbs on one volume take turns. */
  function inTurn<T>(id: string, action: () => Promise<T>): Promise<T> {
    if (!idPattern.test(id)) {
      return Promise.reject(new Fault('invalid', `"${id}" is not a volume id`))
    }
    const before = turns.get(id) ?? Promise.resolve()
    const mine = before.then(action, action)
    const settled = mine.then(
      () => {},
      () => {},
    )
    turns.set(id, settled)
    void settled.then(() => {
      if (turns.get(id) === settled) turns.delete(id)
    })
    return mine
  }

  const folderOf = (id: string): string => join(dir, id)
  const diskOf = (id: string): string => join(dir, id, 'disk.img')
  const mountPointOf = (id: string): string => join(dir, id, 'mount')

  async function create(id: string, sizeGb: number, fstype: 'ext4' | 'raw'): Promise<void> {
    if (!Number.isInteger(sizeGb) || sizeGb < 1 || sizeGb > sizeGbMax) {
      throw new Fault('invalid', `a volume has 1 to ${sizeGbMax} GB, not ${sizeGb}`)
    }
    if (existsSync(diskOf(id))) return
    await mkdir(mountPointOf(id), { recursive: true, mode: 0o700 })
    const unfinished = `${diskOf(id)}.new`
    const file = await open(unfinished, 'w', 0o600)
    try {
      await file.truncate(sizeGb * gibibyte)
      if (fstype === 'ext4') await makeFileSystem(unfinished)
      await file.sync()
    } finally {
      await file.close()
    }
    await rename(unfinished, diskOf(id))
    await flushFolder(folderOf(id))
    await flushFolder(dir)
    options.log.info({ volume: id, sizeGb, fstype }, 'volume is made')
  }

  async function mount(id: string): Promise<string> {
    const point = mountPointOf(id)
    if (mountPoints().has(point)) return point
    if (!existsSync(diskOf(id))) {
      throw new Fault('not_found', `volume ${id} is not on this host`)
    }
    const first = await mountDisk(diskOf(id), point)
    if (first === undefined) return point
    // A file system that was cut off badly: its own repair, once, and only what is safe without a person.
    const repair = await run('e2fsck', ['-p', diskOf(id)], { timeoutMs: 10 * commandTimeoutMs })
    options.log.warn({ volume: id, why: first, repair: repair.code }, 'volume was checked')
    const second = await mountDisk(diskOf(id), point)
    if (second === undefined) return point
    throw new Fault(
      'native_failed',
      `volume ${id} cannot be mounted: ${second}; look at it with: e2fsck -n ${diskOf(id)}`,
    )
  }

  async function unmount(id: string): Promise<void> {
    const point = mountPointOf(id)
    for (let attempt = 1; mountPoints().has(point); attempt++) {
      const result = await run('umount', [point], { timeoutMs: commandTimeoutMs })
      if (result.code === 0) continue
      if (attempt >= busyAttemptsMax) {
        throw new Fault(
          'conflict',
          `volume ${id} cannot be unmounted: ${result.stderr.trim()}; stop what uses it first`,
        )
      }
      await clock.sleep(25 * 2 ** attempt)
    }
  }

  async function destroy(id: string): Promise<void> {
    await unmount(id)
    if (!existsSync(folderOf(id))) return
    // Out of the way by one rename: a kill in the middle leaves no volume with half its data.
    const gone = join(dir, `${id}.gone`)
    await rm(gone, { recursive: true, force: true })
    await rename(folderOf(id), gone)
    await rm(gone, { recursive: true, force: true })
    options.log.info({ volume: id }, 'volume is destroyed')
  }

  return {
    create: ({ id, sizeGb, fstype }) => inTurn(id, () => create(id, sizeGb, fstype)),
    mount: (id) => inTurn(id, () => mount(id)),
    unmount: (id) => inTurn(id, () => unmount(id)),
    destroy: (id) => inTurn(id, () => destroy(id)),
    list: () => readdirSync(dir).filter((name) => existsSync(diskOf(name))),
  }
}

/** A new sparse file reads as zeros, so none need be written: 500 GB take as long as one. */
async function makeFileSystem(path: string): Promise<void> {
  await runOk('mkfs.ext4', ['-q', '-F', '-m', '0', '-E', 'assume_storage_prezeroed=1', path], {
    timeoutMs: commandTimeoutMs,
  })
}

/** Undefined when it is mounted, otherwise why it is not. */
async function mountDisk(disk: string, point: string): Promise<string | undefined> {
  const args = ['-t', 'ext4', '-o', 'loop,nodev,noatime', disk, point]
  const result = await run('mount', args, { timeoutMs: commandTimeoutMs })
  return result.code === 0 ? undefined : result.stderr.trim()
}

async function flushFolder(path: string): Promise<void> {
  const folder = await open(path, 'r')
  try {
    await folder.sync()
  } finally {
    await folder.close()
  }
}
