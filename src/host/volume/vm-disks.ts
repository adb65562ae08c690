import { existsSync } from 'node:fs'
import { rename, rm, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Fault } from '#core/fault.ts'
import { copyStill } from './disk-copy.ts'
import { flush } from './disk-programs.ts'

/** What the room asks of the VM that has a volume's disk: only its guest may mount it, check it or let it grow. */
export interface VolumeVms {
  /** Runs the action while nothing is written to the disk. */
  still<T>(volume: string, action: () => Promise<T>): Promise<T>
  /** Its file became larger: the guest sees it now, or not before it goes on or starts. */
  grow(volume: string): Promise<'grown' | 'at resume' | 'at start'>
  /** What the guest says of it, in the words of statfs; undefined when it says nothing. */
  usage(volume: string): Promise<DiskCounts | undefined>
}

export interface DiskCounts {
  blocks: number
  bsize: number
  bfree: number
  bavail: number
}

/** Which disks are VMs', and what is done with one while it is: nothing without its VM. */
export interface VmDisks {
  /** Over a suspension too. */
  has(id: string): boolean
  take(id: string): Promise<void>
  /** Harmless when none has it. */
  letGo(id: string): Promise<void>
  /** Whether one had it since all of it was last checked. */
  wrote(id: string): boolean
  checked(id: string): Promise<void>
  /** As a power cut would leave it, which its journal repairs; the moment of its last write. */
  copy(id: string, copy: Parameters<typeof copyStill>[0]): Promise<number>
  grow(id: string): ReturnType<VolumeVms['grow']>
  usage(id: string): Promise<DiskCounts | undefined>
}

/** The answers are in files of the volumes' folders. */
export function openVmDisks(folderOf: (id: string) => string, vms: VolumeVms | undefined): VmDisks {
  const hasMark = (id: string): string => join(folderOf(id), 'vm')
  const wroteMark = (id: string): string => join(folderOf(id), 'vm-wrote')
  const requireVms = (id: string): VolumeVms => {
    if (vms) return vms
    throw new Fault('conflict', `volume ${id} is a VM's; stop its machine first`)
  }
  const has = (id: string): boolean => existsSync(hasMark(id))
  return {
    has,
    async take(id) {
      await writeFile(hasMark(id), '')
      await flush(folderOf(id))
    },
    async letGo(id) {
      if (has(id)) await rename(hasMark(id), wroteMark(id))
    },
    wrote: (id) => existsSync(wroteMark(id)),
    checked: (id) => rm(wroteMark(id), { force: true }),
    copy: async (id, copy) =>
      copyStill(copy, (action) =>
        requireVms(id).still(id, async () => {
          await action()
          return (await stat(copy.disk)).mtimeMs
        }),
      ),
    grow: async (id) => requireVms(id).grow(id),
    usage: async (id) => (has(id) ? vms?.usage(id) : undefined),
  }
}
