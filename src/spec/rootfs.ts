import { Fault } from '#core/fault.ts'
import type { MachineConfig } from './machine-config.ts'

/**
 * What ends the life of what a machine wrote to its root (MCH-65), beside its destruction, which always does. `never`: each
 * cold start. `restart`: each update; restarts, stops, crashes and reboots of the host do not. `always`: nothing; what was
 * written lies over the files of whatever image comes next, which shows only where nothing was written.
 */
export const rootPersists = ['never', 'restart', 'always'] as const
export type RootPersist = (typeof rootPersists)[number]

export const isRootPersist = (word: string): word is RootPersist =>
  (rootPersists as readonly string[]).includes(word)

/** The documented size of a root for which nothing is said. */
export const rootGbDefault = 8
/** A disk for a root is sparse, so this bounds what it may become. */
export const rootGbMax = 100

type RootConfig = Pick<MachineConfig, 'guest' | 'rootfs'>

/**
 * MCH-65, TOML-65. `guest.persist_rootfs` is the older name of `rootfs.persist`, and what fly.toml's `[[vm]]` becomes: it
 * counts where the newer one says nothing. Empty is nothing.
 * @throws Fault `invalid` when both say something, and not the same
 */
export function rootPersistOf({ guest, rootfs }: RootConfig): RootPersist {
  const newer = rootfs?.persist || undefined
  const older = guest?.persist_rootfs || undefined
  if (newer && older && newer !== older) {
    throw new Fault(
      'invalid',
      `rootfs.persist is "${newer}" and guest.persist_rootfs, its older name, is "${older}"; leave one of them out`,
    )
  }
  return newer ?? older ?? 'never'
}

/**
 * How much a machine may write to its root, in GB: `fs_size_gb`, a file system within the disk of `size_gb`, or all of it.
 * @throws Fault `invalid` for a size that no root has
 */
export function rootGbOf({ rootfs }: RootConfig): number {
  const sizes = { size_gb: rootfs?.size_gb || 0, fs_size_gb: rootfs?.fs_size_gb || 0 }
  for (const [key, gb] of Object.entries(sizes)) {
    if (gb >= 0 && gb <= rootGbMax) continue
    throw new Fault('invalid', `rootfs.${key} must be 1 to ${rootGbMax}, or absent; it is ${gb}`)
  }
  const { size_gb, fs_size_gb } = sizes
  const whole = size_gb || Math.max(rootGbDefault, fs_size_gb)
  if (fs_size_gb > whole) {
    throw new Fault(
      'invalid',
      `rootfs.fs_size_gb is ${fs_size_gb}, which is more than rootfs.size_gb, ${size_gb}; make it smaller or leave it out`,
    )
  }
  return fs_size_gb || whole
}
