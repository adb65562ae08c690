import { writeFileSync } from 'node:fs'
import { z } from 'zod'
import { systemClock } from '#core/clock.ts'
import { readJsonFile, tailOfFile } from '#sys/files.ts'
import { discard } from '../machine-folder.ts'
import type { VmFolder, VmFolders } from './vm-folder.ts'

const triesSchema = z.object({ count: z.int(), sinceMs: z.number() })

/** So many monitors in a row, over so long at least: the want of memory that kills one passes. */
const triesMax = 3
const spanMs = 5 * 60_000

/** What the launcher's programs say, and the kernel of its host: no monitor has read the snapshot. */
const neverLoaded = [
  /^(?:nsenter|unshare|mount|umount|mknod|cp|pivot_root|setpriv|sh|\/bin\/sh): /m,
  /Cannot allocate memory|Resource temporarily unavailable|Too many open files|No space left/,
  /Permission denied|No such file or directory|Device or resource busy|Could not access KVM/,
]

/**
 * After a monitor was given a snapshot and died or hung before it had loaded it: discards the snapshot when QEMU says that
 * it is of no use, or when that happened too often. The count is in the snapshot's folder, and gone with it. Returns why
 * it is discarded; undefined when it is kept.
 */
export function judgeLoad(folders: VmFolders, at: VmFolder): string | undefined {
  const words = tailOfFile(at.vmmLog, 4096)
  const flaw = words.includes('load of migration failed')
    ? 'QEMU does not understand its snapshot'
    : neverLoaded.some((trouble) => trouble.test(words))
      ? undefined
      : tooManyTries(at)
  if (flaw) discard(folders, at.snapshot)
  return flaw
}

function tooManyTries(at: VmFolder): string | undefined {
  const now = systemClock.now()
  const before = triesSchema.safeParse(readJsonFile(at.triesFile)).data
  const count = (before?.count ?? 0) + 1
  const sinceMs = Math.min(before?.sinceMs ?? now, now)
  if (count >= triesMax && now - sinceMs >= spanMs) {
    return `its snapshot could not be loaded ${count} times in ${Math.round((now - sinceMs) / 60_000)} minutes, and counts as damaged`
  }
  writeFileSync(at.triesFile, JSON.stringify({ count, sinceMs }), { mode: 0o600, flush: true })
  return undefined
}
