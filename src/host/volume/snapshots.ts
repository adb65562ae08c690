import { existsSync, mkdirSync, readdirSync, rmSync } from 'node:fs'
import { mkdir, rename, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import type { Readable } from 'node:stream'
import type { Logger } from '#sys/log.ts'
import { flush } from './disk-programs.ts'
import { digestOf, packDisk } from './disk-stream.ts'
import { openTurns } from './turns.ts'

export interface TakenSnapshot {
  /** Bytes it holds on disk, shared ones included. */
  bytes: number
  /** sha256 of what `read` gives, as hexadecimal digits. */
  digest: string
  /** The volume's last write that is surely in it, in milliseconds since the epoch; null when it was there before. */
  changedAt: number | null
}

export interface Snapshots {
  /** Takes a volume as it is at one moment. Repeated, it goes on where it was cut short. */
  take(snapshot: { id: string; volume: string }): Promise<TakenSnapshot>
  /** Its bytes as a sparse tar; whoever stops reading ends it. */
  read(id: string): Readable
  remove(id: string): Promise<void>
  /** The ids of all that are complete. */
  list(): string[]
  folderOf(id: string): string
  diskOf(id: string): string
}

/** Opens the folder of snapshots and finishes removals that were cut short. */
export function openSnapshots(options: {
  dir: string
  log: Logger
  copyDisk: (id: string, to: { targetFolder: string; target: string }) => Promise<number>
}): Snapshots {
  const { dir } = options
  mkdirSync(dir, { recursive: true, mode: 0o700 })
  for (const name of readdirSync(dir)) {
    if (name.endsWith('.gone')) rmSync(join(dir, name), { recursive: true, force: true })
  }
  const inTurn = openTurns('snapshot')
  const folderOf = (id: string): string => join(dir, id)
  const diskOf = (id: string): string => join(dir, id, 'disk.img')

  async function take(id: string, volume: string): Promise<TakenSnapshot> {
    const disk = diskOf(id)
    let changedAt: number | null = null
    if (!existsSync(disk)) {
      await mkdir(folderOf(id), { recursive: true, mode: 0o700 })
      const target = `${disk}.new`
      try {
        changedAt = await options.copyDisk(volume, { targetFolder: folderOf(id), target })
      } catch (error) {
        // One that failed takes no space.
        await rm(folderOf(id), { recursive: true, force: true })
        throw error
      }
      await flush(target)
      await rename(target, disk)
      await flush(folderOf(id))
      await flush(dir)
    }
    const digest = await digestOf(folderOf(id))
    const bytes = (await stat(disk)).blocks * 512
    options.log.info({ snapshot: id, volume, bytes }, 'snapshot is taken')
    return { bytes, digest, changedAt }
  }

  async function remove(id: string): Promise<void> {
    if (!existsSync(folderOf(id))) return
    const gone = join(dir, `${id}.gone`)
    await rm(gone, { recursive: true, force: true })
    await rename(folderOf(id), gone)
    await rm(gone, { recursive: true, force: true })
    options.log.info({ snapshot: id }, 'snapshot is removed')
  }

  return {
    take: ({ id, volume }) => inTurn(id, () => take(id, volume)),
    read: (id) => packDisk(folderOf(id)),
    remove: (id) => inTurn(id, () => remove(id)),
    list: () => readdirSync(dir).filter((name) => existsSync(diskOf(name))),
    folderOf,
    diskOf,
  }
}
