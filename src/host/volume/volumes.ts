import { existsSync, mkdirSync, readdirSync, realpathSync, rmSync } from 'node:fs'
import { mkdir, open, rename, rm, stat, statfs, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { systemClock, type Clock } from '#core/clock.ts'
import { Fault, messageOf } from '#core/fault.ts'
import type { Logger } from '#sys/log.ts'
import { run } from '#sys/process.ts'
import { copyCold, copyFrozen, thaw } from './disk-copy.ts'
import * as programs from './disk-programs.ts'
import { unpackDisk, type DiskStream } from './disk-stream.ts'
import { mountPoints } from './mount-table.ts'
import { openSnapshots, type Snapshots } from './snapshots.ts'
import { readSuperblock } from './superblock.ts'
import { openTurns } from './turns.ts'
import { openVmDisks, type DiskCounts, type VolumeVms } from './vm-disks.ts'

export interface VolumesOptions {
  dir: string
  snapshotsDir: string
  log: Logger
  clock?: Clock
  vms?: VolumeVms
}

/** What a volume is filled from: a snapshot or a volume of this host, or what another host sends. */
export type VolumeContent =
  | { kind: 'snapshot' | 'volume'; id: string }
  | { kind: 'stream'; open: (signal: AbortSignal) => Promise<DiskStream> }

/** VOL-3. */
export interface VolumeUsage {
  blocks: number
  block_size: number
  blocks_free: number
  blocks_avail: number
  bytes_used: number
  bytes_total: number
}

export interface Volumes {
  /** Makes the file and its file system. VOL-2: 1 to 500 GB; the bytes are taken when they are written. */
  create(volume: { id: string; sizeGb: number; fstype: 'ext4' | 'raw' }): Promise<void>
  /** Makes the file with the content of another and lets its file system fill it (VOL-13, VOL-15). The signal ends it. */
  fillFrom(
    volume: { id: string; sizeGb: number; from: VolumeContent },
    signal: AbortSignal,
  ): Promise<void>
  /** VOL-2: larger, under its writers too. False when the file system grows only at the next mount. */
  extend(volume: { id: string; sizeGb: number }): Promise<boolean>
  /** Ends the extension of a disk whose VM stood still, once that goes on; otherwise does nothing. */
  growOn(id: string): Promise<void>
  /** Mounts the volume; the path on the host. VOL-8: `lost+found` at its root, which root owns. */
  mount(id: string): Promise<string>
  /**
   * The file of the disk, for a VM: whole, not mounted here, and from now on the VM's alone until `unmount`. One that a VM
   * has is left as it is, so that a snapshot of its memory still fits.
   */
  attach(id: string): Promise<string>
  /** Lets go of it, mounted or a VM's that is gone. Fault `conflict` when something still uses it. */
  unmount(id: string): Promise<void>
  /** Unmounts it and removes its data for ever. */
  destroy(id: string): Promise<void>
  /** The ids of all volumes on this host. */
  list(): string[]
  /** The file that is the disk. */
  imagePath(id: string): string
  /** Of those among them that are mounted, here or in a VM that runs. */
  usage(ids: readonly string[]): Promise<Map<string, VolumeUsage>>
  /** When something last wrote to it, in milliseconds since the epoch; undefined when it is not here. */
  changedAt(id: string): Promise<number | undefined>
  /** What the host's file system could still take. */
  freeBytes(): Promise<number>
  snapshots: Snapshots
}

const sizeGbMax = 500
const commandTimeoutMs = 60_000
/** A machine's last process may still be on its way out when its volume is unmounted. */
const busyAttemptsMax = 6
/** A copy of a disk at rest is begun again when somebody mounts it meanwhile. */
const copyTriesMax = 5

/** Opens the folder of volumes and finishes removals that were cut short; what stands still is thawed. */
export function openVolumes(options: VolumesOptions): Volumes {
  const clock = options.clock ?? systemClock
  mkdirSync(options.dir, { recursive: true, mode: 0o700 })
  // The kernel names mounts by their real path.
  const dir = realpathSync(options.dir)
  for (const name of readdirSync(dir)) {
    if (name.endsWith('.gone')) rmSync(join(dir, name), { recursive: true, force: true })
  }
  const takeTurn = openTurns('volume')
  /** Copies of disks at rest, by volume: whoever changes the disk ends them. */
  const copies = new Map<string, Set<{ stop: AbortController; done: Promise<unknown> }>>()
  /** Those where nothing that an earlier host process began is at work any more. */
  const settled = new Set<string>()

  const folderOf = (id: string): string => join(dir, id)
  const diskOf = (id: string): string => join(dir, id, 'disk.img')
  const mountPointOf = (id: string): string => join(dir, id, 'mount')
  /** There while its file system is to fill its file. */
  const growMarkOf = (id: string): string => join(dir, id, 'grow')
  /** There while its writers stand still. */
  const frozenMarkOf = (id: string): string => join(dir, id, 'frozen')
  const vmDisks = openVmDisks(folderOf, options.vms)

  /** The verbs on one volume take turns. */
  function inTurn<T>(id: string, action: () => Promise<T>): Promise<T> {
    return takeTurn(id, async () => {
      if (!settled.has(id) && existsSync(folderOf(id))) {
        await programs.waitForLock(folderOf(id))
        if (existsSync(frozenMarkOf(id))) await thaw(mountPointOf(id), frozenMarkOf(id))
      }
      settled.add(id)
      return action()
    })
  }

  /** In turn, by one that changes the disk: it does not wait for a copy that can be begun again. */
  const alone = <T>(id: string, action: () => Promise<T>): Promise<T> =>
    inTurn(id, async () => {
      const running = [...(copies.get(id) ?? [])]
      for (const { stop } of running) stop.abort()
      await Promise.all(running.map(({ done }) => done))
      return action()
    })

  async function create(id: string, sizeGb: number, fstype: 'ext4' | 'raw'): Promise<void> {
    checkSize(sizeGb)
    if (existsSync(diskOf(id))) return
    await mkdir(mountPointOf(id), { recursive: true, mode: 0o700 })
    const unfinished = `${diskOf(id)}.new`
    const file = await open(unfinished, 'w', 0o600)
    try {
      await file.truncate(sizeGb * programs.gibibyte)
      if (fstype === 'ext4') await programs.makeFileSystem(folderOf(id), unfinished)
      await file.sync()
    } finally {
      await file.close()
    }
    await finish(id)
    options.log.info({ volume: id, sizeGb, fstype }, 'volume is made')
  }

  /** The complete disk takes its name, and is on disk with it. */
  async function finish(id: string): Promise<void> {
    await rename(`${diskOf(id)}.new`, diskOf(id))
    await programs.flush(folderOf(id))
    await programs.flush(dir)
  }

  async function fill(
    { id, sizeGb, from }: { id: string; sizeGb: number; from: VolumeContent },
    signal: AbortSignal,
  ): Promise<void> {
    checkSize(sizeGb)
    if (existsSync(diskOf(id))) return
    await mkdir(mountPointOf(id), { recursive: true, mode: 0o700 })
    const folder = folderOf(id)
    const unfinished = `${diskOf(id)}.new`
    try {
      await rm(unfinished, { force: true })
      await bring(id, from, { unfinished, signal })
      signal.throwIfAborted()
      await programs.lengthen(unfinished, sizeGb * programs.gibibyte)
      await programs.growUnmounted(folder, unfinished, ownerOf(id))
      await programs.renewUuid(folder, unfinished)
      await programs.flush(unfinished)
    } catch (error) {
      // The next try begins anew: until then it takes no space.
      await rm(unfinished, { force: true })
      await rm(join(folder, 'incoming'), { recursive: true, force: true })
      throw error
    }
    await finish(id)
    options.log.info({ volume: id, sizeGb, from: from.kind }, 'volume is filled')
  }

  async function bring(
    id: string,
    from: VolumeContent,
    { unfinished, signal }: { unfinished: string; signal: AbortSignal },
  ): Promise<void> {
    const to = { targetFolder: folderOf(id), target: unfinished }
    if (from.kind === 'stream') {
      const stream = await from.open(signal)
      await unpackDisk(folderOf(id), unfinished, { stream, signal }).finally(() =>
        stream.body.destroy(),
      )
    } else if (from.kind === 'volume') {
      await copyDisk(from.id, { ...to, signal })
    } else {
      const source = { folder: snapshots.folderOf(from.id), disk: snapshots.diskOf(from.id) }
      await copyCold({ ...source, ...to }, signal)
    }
  }

  /**
   * Copies a volume's disk as it is at one moment, under its writers too. Resolves with the moment of the last write that
   * is surely in it. Not in the volume's turn: a mount does not wait for the copy of a disk at rest, it ends it, and
   * then the copy is made of the mounted one.
   */
  async function copyDisk(
    id: string,
    to: { targetFolder: string; target: string; signal?: AbortSignal },
  ): Promise<number> {
    const copy = { ...to, folder: folderOf(id), disk: diskOf(id) }
    for (let tries = 1; tries <= copyTriesMax; tries++) {
      to.signal?.throwIfAborted()
      const under = await inTurn(id, async () => {
        requireDisk(id)
        await rm(to.target, { force: true })
        const point = mountPointOf(id)
        if (mountPoints().has(point)) {
          await copyFrozen({ ...copy, point, marker: frozenMarkOf(id) })
          return { copied: await modifiedAt(copy.disk) }
        }
        if (vmDisks.has(id)) return { copied: await vmDisks.copy(id, copy) }
        await requireReleased(id)
        const before = await modifiedAt(copy.disk)
        const stop = new AbortController()
        const signal = to.signal ? AbortSignal.any([to.signal, stop.signal]) : stop.signal
        const done = copyCold(copy, signal)
        remember(id, { stop, done: done.catch(() => {}) })
        return { done, before }
      })
      if (under.copied !== undefined) return under.copied
      if (await under.done) return under.before
    }
    to.signal?.throwIfAborted()
    throw new Fault('conflict', `volume ${id} was mounted again and again while it was copied`)
  }

  function remember(id: string, copy: { stop: AbortController; done: Promise<unknown> }): void {
    const those = copies.get(id) ?? new Set()
    copies.set(id, those.add(copy))
    void copy.done.then(() => {
      those.delete(copy)
      if (those.size === 0 && copies.get(id) === those) copies.delete(id)
    })
  }

  async function extend(id: string, sizeGb: number): Promise<boolean> {
    checkSize(sizeGb)
    requireDisk(id)
    // Written down first: a mount after a kill at any of these steps lets the file system fill its file.
    await writeFile(growMarkOf(id), '')
    await programs.flush(folderOf(id))
    await programs.lengthen(diskOf(id), sizeGb * programs.gibibyte)
    const mounted = mountPoints().has(mountPointOf(id))
    if (vmDisks.has(id)) {
      const when = await vmDisks.grow(id)
      if (when !== 'grown') return when === 'at resume'
    } else if (mounted) {
      if (!(await programs.growMounted(diskOf(id), mountPointOf(id)))) {
        options.log.warn(
          { volume: id },
          'the kernel lets only a process with CAP_SYS_RESOURCE grow a mounted file system; it grows at the next mount',
        )
        return false
      }
    } else {
      await requireReleased(id)
      await programs.growUnmounted(folderOf(id), diskOf(id), ownerOf(id))
    }
    await rm(growMarkOf(id), { force: true })
    options.log.info({ volume: id, sizeGb, mounted }, 'volume is extended')
    return true
  }

  async function growOn(id: string): Promise<void> {
    if (!existsSync(growMarkOf(id)) || !vmDisks.has(id)) return
    if ((await vmDisks.grow(id)) === 'grown') await rm(growMarkOf(id), { force: true })
  }

  async function growIfMarked(id: string): Promise<void> {
    if (!existsSync(growMarkOf(id))) return
    await programs.growUnmounted(folderOf(id), diskOf(id), ownerOf(id))
    await rm(growMarkOf(id), { force: true })
  }

  async function attach(id: string): Promise<string> {
    requireDisk(id)
    if (vmDisks.has(id)) return diskOf(id)
    await letGo(id)
    await requireReleased(id)
    await growIfMarked(id)
    if (!(await readSuperblock(diskOf(id))).isClean) {
      // The guest can repair nothing that its journal does not: what was cut off badly is mended first.
      const repair = await programs.repairDisk(folderOf(id), diskOf(id), { whose: ownerOf(id) })
      options.log.debug({ volume: id, repair }, 'volume was checked for a VM')
    }
    await vmDisks.take(id)
    return diskOf(id)
  }

  async function mount(id: string): Promise<string> {
    const point = mountPointOf(id)
    if (mountPoints().has(point)) return point
    requireDisk(id)
    if (vmDisks.has(id)) {
      throw new Fault('conflict', `the disk of volume ${id} is a VM's; stop its machine first`)
    }
    if (vmDisks.wrote(id)) await checkAll(id)
    const held = existsSync(growMarkOf(id)) && (await programs.waitForRelease(diskOf(id)))
    if (held) {
      // Its file system lives on and is only shown here again.
      options.log.warn(
        { volume: id, held },
        'a volume is in use elsewhere; it grows at a later mount',
      )
    } else await growIfMarked(id)
    const first = await programs.mountDisk(diskOf(id), point)
    if (first === undefined) return point
    // A file system that was cut off badly: its own repair, once, and only what is safe without a person.
    await requireReleased(id)
    const repair = await programs.repairDisk(folderOf(id), diskOf(id), { whose: ownerOf(id) })
    options.log.warn({ volume: id, why: first, repair }, 'volume was checked')
    const second = await programs.mountDisk(diskOf(id), point)
    if (second === undefined) return point
    throw programs.damagedFault(ownerOf(id), diskOf(id), `it cannot be mounted: ${second}`)
  }

  /**
   * A guest wrote every byte of its disk, perhaps to attack the kernel that mounts it: before ours does, it is checked as a
   * whole, however clean it says that it is.
   */
  async function checkAll(id: string): Promise<void> {
    await requireReleased(id)
    const how = { whose: ownerOf(id), evenIfClean: true }
    const repair = await programs.repairDisk(folderOf(id), diskOf(id), how)
    await vmDisks.checked(id)
    options.log.debug({ volume: id, repair }, "a VM's volume was checked for a mount")
  }

  function requireDisk(id: string): void {
    if (!existsSync(diskOf(id))) throw new Fault('not_found', `volume ${id} is not on this host`)
  }

  /** @throws Fault `conflict` while a file system is on the disk that is no longer mounted here */
  async function requireReleased(id: string): Promise<void> {
    const device = await programs.waitForRelease(diskOf(id))
    if (!device) return
    throw new Fault(
      'conflict',
      `volume ${id} is still in use by a process of its host, whose log says how to find it; try again later`,
      { cause: new Error(`${diskOf(id)} is mounted: grep -l ${device} /proc/*/mountinfo`) },
    )
  }

  async function unmount(id: string): Promise<void> {
    await vmDisks.letGo(id)
    await letGo(id)
  }

  async function letGo(id: string): Promise<void> {
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
    settled.delete(id)
    options.log.info({ volume: id }, 'volume is destroyed')
  }

  async function usageOf(ids: readonly string[]): Promise<Map<string, VolumeUsage>> {
    const points = mountPoints()
    const entries = ids.map(async (id): Promise<[string, VolumeUsage][]> => {
      const point = mountPointOf(id)
      const counts = await (points.has(point) ? statfs(point) : vmDisks.usage(id))
      return counts ? [[id, usageFrom(counts)]] : []
    })
    return new Map((await Promise.all(entries)).flat())
  }

  const list = () => readdirSync(dir).filter((name) => existsSync(diskOf(name)))
  for (const id of list()) {
    if (!existsSync(frozenMarkOf(id))) continue
    inTurn(id, async () => {}).catch((error: unknown) =>
      options.log.error({ volume: id, error: messageOf(error) }, 'a volume may stand still'),
    )
  }
  const snapshots = openSnapshots({ dir: options.snapshotsDir, log: options.log, copyDisk })
  return {
    create: ({ id, sizeGb, fstype }) => inTurn(id, () => create(id, sizeGb, fstype)),
    fillFrom: (volume, signal) => inTurn(volume.id, () => fill(volume, signal)),
    extend: ({ id, sizeGb }) => alone(id, () => extend(id, sizeGb)),
    growOn: (id) => inTurn(id, () => growOn(id)),
    mount: (id) => alone(id, () => mount(id)),
    attach: (id) => alone(id, () => attach(id)),
    unmount: (id) => inTurn(id, () => unmount(id)),
    destroy: (id) => alone(id, () => destroy(id)),
    list,
    imagePath: diskOf,
    usage: usageOf,
    changedAt: (id) => modifiedAt(diskOf(id)).catch(() => undefined),
    freeBytes: async () => {
      const { bavail, bsize } = await statfs(dir)
      return bavail * bsize
    },
    snapshots,
  }
}

const ownerOf = (id: string): programs.DiskOwner => ({
  name: `volume ${id}`,
  orElse: 'make a new volume from one of its snapshots',
})

function checkSize(sizeGb: number): void {
  if (!Number.isInteger(sizeGb) || sizeGb < 1 || sizeGb > sizeGbMax) {
    throw new Fault('invalid', `a volume has 1 to ${sizeGbMax} GB, not ${sizeGb}`)
  }
}

/** A disk's file is written to by its file system, and by what makes that stand still and go on. */
async function modifiedAt(disk: string): Promise<number> {
  return (await stat(disk)).mtimeMs
}

function usageFrom({ blocks, bsize, bfree, bavail }: DiskCounts): VolumeUsage {
  const counts = { blocks, block_size: bsize, blocks_free: bfree, blocks_avail: bavail }
  return { ...counts, bytes_used: (blocks - bfree) * bsize, bytes_total: blocks * bsize }
}
