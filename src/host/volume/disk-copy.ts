import { rm, stat, writeFile } from 'node:fs/promises'
import { Fault } from '#core/fault.ts'
import { limits } from '#core/limits.ts'
import { lockArgs, longTimeoutMs, runLocked } from './disk-programs.ts'
import { run } from '#sys/process.ts'

/** Shares the blocks where the file system can, otherwise copies those that were written. */
const copyWords = ['cp', '--reflink=auto', '--sparse=always', '--no-target-directory']
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
 * @throws Fault `native_failed` with the words of cp
 */
export async function copyCold(copy: Copy, signal: AbortSignal): Promise<boolean> {
  const words = [
    'flock',
    ...lockArgs(copy.targetFolder, 'exclusive'),
    ...copyWords,
    copy.disk,
    copy.target,
  ]
  const options = { kind: 'shared', signal, timeoutMs: 6 * longTimeoutMs } as const
  const { code, stderr } = await runLocked(copy.folder, words, options)
  if (signal.aborted) return false
  if (code !== 0) throw new Fault('native_failed', `cannot copy ${copy.disk}: ${stderr.trim()}`)
  return true
}

/**
 * The file system stands still only inside of this program, which thaws it however the copy ends, also when the host
 * process dies meanwhile. $1 the mount point, $2 the disk, $3 the copy, $4 how many seconds it may take without
 * copy-on-write, 0 for none.
 */
const frozenScript = `
  point=$1
  fsfreeze --freeze "$point" || exit 1
  trap 'fsfreeze --unfreeze "$point"' EXIT
  cp --reflink=always --no-target-directory "$2" "$3" 2>/dev/null && exit 0
  [ "$4" -gt 0 ] || exit 124
  timeout --kill-after=1 "$4" cp --sparse=always --no-target-directory "$2" "$3"
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
  const { point, marker, disk } = copy
  // What no file uses any more need not be copied.
  await run('fstrim', [point], { timeoutMs: limits.volumeFreezeMsMax })
  const bytes = (await stat(disk)).blocks * 512
  const seconds = bytes > frozenBytesMax ? 0 : limits.volumeFreezeMsMax / 1000
  await writeFile(marker, '')
  try {
    const script = ['bash', '-c', frozenScript, 'copy-frozen', point, disk, copy.target]
    const locked = ['flock', ...lockArgs(copy.targetFolder, 'exclusive'), ...script]
    const { code, stderr } = await runLocked(copy.folder, [...locked, String(seconds)], {
      kind: 'shared',
    })
    if (code === timeoutCode || code === killedCode) {
      throw new Fault(
        'precondition_failed',
        `the ${Math.ceil(bytes / 1024 ** 2)} MB of ${disk} cannot be copied while its writers stand still, for at most ${limits.volumeFreezeMsMax / 1000} s, and the host's file system has no copy-on-write; stop the machine and try again, or keep the host's folder on XFS or Btrfs`,
      )
    }
    if (code !== 0) throw new Fault('native_failed', `cannot copy ${disk}: ${stderr.trim()}`)
  } finally {
    await thaw(point, marker)
  }
}

/** Makes sure that nothing stands still; one that does not is no error. */
export async function thaw(point: string, marker: string): Promise<void> {
  await run('fsfreeze', ['--unfreeze', point], { timeoutMs: limits.volumeFreezeMsMax })
  await rm(marker, { force: true })
}
