import { rm, stat, statfs, writeFile } from 'node:fs/promises'
import { Fault } from '#core/fault.ts'
import { limits } from '#core/limits.ts'
import { lockArgs, longTimeoutMs, runLocked } from './disk-programs.ts'
import { diskFull, saysDiskFull } from '#sys/disk-full.ts'
import { run } from '#sys/process.ts'

/** Shares the blocks where the file system can, at once; fails where it cannot. */
const cloneWords = ['cp', '--reflink=always', '--no-target-directory']
/** Copies the parts of a file that were written. */
const copyWords = ['cp', '--sparse=always', '--no-target-directory']
/** What is copied while writers stand still, without copy-on-write: more would hardly fit in the limit. */
const frozenBytesMax = 4 * 1024 ** 3

interface Copy {
  /** Folders of the two disks: who only reads one shares its lock. */
  folder: string
  disk: string
  targetFolder: string
  target: string
}

/**
 * Copies a disk that nobody writes to. False when the signal ended it.
 * @throws Fault `native_failed` with the words of cp, `insufficient_capacity` when it would fill the disk
 */
export async function copyCold(copy: Copy, signal: AbortSignal): Promise<boolean> {
  const under = (words: string[]) =>
    runLocked(
      copy.folder,
      ['flock', ...lockArgs(copy.targetFolder, 'exclusive'), ...words, copy.disk, copy.target],
      { kind: 'shared', signal, timeoutMs: 6 * longTimeoutMs },
    )
  if ((await under(cloneWords)).code === 0) return true
  if (signal.aborted) return false
  await requireRoom(copy.targetFolder, (await stat(copy.disk)).blocks * 512)
  const { code, stderr } = await under(copyWords)
  if (signal.aborted) return false
  if (saysDiskFull(stderr)) throw diskFull()
  if (code !== 0) throw new Fault('native_failed', `cannot copy ${copy.disk}: ${stderr.trim()}`)
  return true
}

/** $2 the disk, $3 the copy, $4 how many seconds it may take without copy-on-write, 0 for none. */
const copyScript = `
  cp --reflink=always --no-target-directory "$2" "$3" 2>/dev/null && exit 0
  [ "$4" -gt 0 ] || exit 124
  timeout --kill-after=1 "$4" cp --sparse=always --no-target-directory "$2" "$3"
`

/**
 * The file system at the mount point $1 stands still only inside of this program, which thaws it however the copy ends, also
 * when the host process dies meanwhile.
 */
const frozenScript = `
  point=$1
  fsfreeze --freeze "$point" || exit 1
  trap 'fsfreeze --unfreeze "$point"' EXIT
  ${copyScript}
`

const timeoutCode = 124
const killedCode = 137

/**
 * Copies the disk of a mounted file system as it is at one moment: what was written is flushed and writers wait until
 * the copy is there, at once with copy-on-write, otherwise for at most `volumeFreezeMsMax`. A copy of what is being written to
 * would be torn, so one that takes longer is given up and the writers go on.
 * @throws Fault `precondition_failed` when it did not fit in the limit
 */
export async function copyFrozen(copy: Copy & { point: string; marker: string }): Promise<void> {
  const { point, marker } = copy
  // What no file uses any more need not be copied.
  await run('fstrim', [point], { timeoutMs: limits.volumeFreezeMsMax })
  const within = await timeFor(copy)
  await writeFile(marker, '')
  try {
    await copyWithin(copy, { script: frozenScript, point, ...within })
  } finally {
    await thaw(point, marker)
  }
}

/**
 * Copies the disk of a VM, within the same limit, while `still` keeps its guest from writing.
 * @throws Fault `precondition_failed` when it did not fit in the limit
 */
export async function copyStill<T>(
  copy: Copy,
  still: (action: () => Promise<void>) => Promise<T>,
): Promise<T> {
  const within = await timeFor(copy)
  return still(() => copyWithin(copy, { script: copyScript, point: '', ...within }))
}

/** How long a copy without copy-on-write may take: no time at all when there is no room for it, or when it is too large. */
async function timeFor(copy: Copy): Promise<{ bytes: number; seconds: number; lack: unknown }> {
  const bytes = (await stat(copy.disk)).blocks * 512
  const lack = await requireRoom(copy.targetFolder, bytes).catch((error: unknown) => error)
  const seconds = lack || bytes > frozenBytesMax ? 0 : limits.volumeFreezeMsMax / 1000
  return { bytes, seconds, lack }
}

async function copyWithin(
  copy: Copy,
  how: { script: string; point: string; bytes: number; seconds: number; lack: unknown },
): Promise<void> {
  const { disk, target, targetFolder } = copy
  const script = ['bash', '-c', how.script, 'copy-disk', how.point, disk, target]
  const locked = ['flock', ...lockArgs(targetFolder, 'exclusive'), ...script, String(how.seconds)]
  const { code, stderr } = await runLocked(copy.folder, locked, { kind: 'shared' })
  if (how.lack && code === timeoutCode) throw how.lack
  if (code === timeoutCode || code === killedCode) {
    throw new Fault(
      'precondition_failed',
      `the ${Math.ceil(how.bytes / 1024 ** 2)} MB of ${disk} cannot be copied while its writers stand still, for at most ${limits.volumeFreezeMsMax / 1000} s, and the host's file system has no copy-on-write; stop the machine and try again, or keep the host's folder on XFS or Btrfs`,
    )
  }
  if (saysDiskFull(stderr)) throw diskFull()
  if (code !== 0) throw new Fault('native_failed', `cannot copy ${disk}: ${stderr.trim()}`)
}

/** What is left free beside a copy, for machines and for the host's own records. */
const spareBytes = 1024 ** 3

/** @throws Fault `insufficient_capacity` when a copy of so many bytes would fill the disk that everything is on */
export async function requireRoom(folder: string, bytes: number): Promise<void> {
  const { bavail, bsize } = await statfs(folder)
  if (bavail * bsize >= bytes + spareBytes) return
  throw new Fault(
    'insufficient_capacity',
    `the host's disk has ${Math.floor((bavail * bsize) / 1024 ** 2)} MB free, too few for a copy of ${Math.ceil(bytes / 1024 ** 2)} MB; remove volumes or snapshots, or use another host`,
  )
}

/** Makes sure that nothing stands still; one that does not is no error. */
export async function thaw(point: string, marker: string): Promise<void> {
  await run('fsfreeze', ['--unfreeze', point], { timeoutMs: limits.volumeFreezeMsMax })
  await rm(marker, { force: true })
}
