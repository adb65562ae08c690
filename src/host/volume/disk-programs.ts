import { open } from 'node:fs/promises'
import { systemClock } from '#core/clock.ts'
import { Fault } from '#core/fault.ts'
import { run, runOk, type RunOptions, type RunResult } from '#sys/process.ts'

const commandTimeoutMs = 60_000
/** e2fsck and resize2fs of 500 GB that are nearly full. */
export const longTimeoutMs = 10 * commandTimeoutMs
/** What a host process that was killed had begun is waited for, and holds its lock until it ends. */
const lockWaitSeconds = 120
const lockBusyCode = 75
/** A program's way into its sandbox takes less. */
const releaseTimeoutMs = 5_000
const growTriesMax = 8
const growRetryMs = 25

export const gibibyte = 1024 ** 3

/**
 * What `flock` needs before a program's own words to lock a folder for as long as the program lives: a program that a
 * killed host left behind and its repetition never write to one disk together.
 */
export const lockArgs = (folder: string, kind: 'shared' | 'exclusive'): string[] =>
  [
    [`--${kind}`, '--no-fork', '--wait', String(lockWaitSeconds)],
    ['--conflict-exit-code', String(lockBusyCode), folder],
  ].flat()

export async function runLocked(
  folder: string,
  words: readonly string[],
  options: RunOptions & { kind?: 'shared' } = {},
): Promise<RunResult> {
  const args = [...lockArgs(folder, options.kind ?? 'exclusive'), ...words]
  const result = await run('flock', args, { timeoutMs: longTimeoutMs, ...options })
  if (result.code === lockBusyCode) {
    throw new Fault(
      'conflict',
      `${folder} has been in use by a program of an earlier host process for ${lockWaitSeconds} s; see who has it with: fuser -v ${folder}`,
    )
  }
  return result
}

async function runLockedOk(folder: string, words: readonly string[]): Promise<void> {
  const { code, stdout, stderr } = await runLocked(folder, words)
  if (code === 0) return
  const said = (stderr.trim() || stdout.trim()).slice(-2000)
  throw new Fault('native_failed', `${words.join(' ')} failed with exit code ${code}: ${said}`)
}

/** Resolves when nothing of an earlier host process works on the folder any more. */
export async function waitForLock(folder: string): Promise<void> {
  await runLocked(folder, ['true'])
}

/**
 * A new sparse file reads as zeros, so none need be written: 500 GB take as long as one. With its checksum seed of its
 * own the UUID of a copy can be changed without touching every block of metadata.
 */
export async function makeFileSystem(folder: string, disk: string): Promise<void> {
  const features = ['-O', 'metadata_csum_seed', '-E', 'assume_storage_prezeroed=1']
  await runLockedOk(folder, ['mkfs.ext4', '-q', '-F', '-m', '0', ...features, disk])
}

/** Undefined when it is mounted, otherwise why it is not. */
export async function mountDisk(disk: string, point: string): Promise<string | undefined> {
  const args = ['-t', 'ext4', '-o', 'loop,nodev,noatime', disk, point]
  const result = await run('mount', args, { timeoutMs: commandTimeoutMs })
  return result.code === 0 ? undefined : result.stderr.trim()
}

/** Exit codes of e2fsck up to this one: all is well, or was made so. */
const repairedMax = 2

/**
 * Its own repair, only what is safe without a person; the exit code. What is beyond that is left as it is: nobody makes a new
 * file system over somebody's data.
 * @throws Fault `native_failed`
 */
export async function repairDisk(
  folder: string,
  disk: string,
  how: { whose: DiskOwner; evenIfClean?: boolean },
): Promise<number> {
  const words = ['e2fsck', ...(how.evenIfClean ? ['-f'] : []), '-p', disk]
  const { code, stdout, stderr } = await runLocked(folder, words)
  if (code <= repairedMax) return code
  const said = (stderr.trim() || stdout.trim()).replaceAll(/\s+/g, ' ').slice(0, 300)
  throw damagedFault(how.whose, disk, said)
}

/** For messages: what a disk is, and what to do when it cannot be mended. */
export interface DiskOwner {
  name: string
  orElse: string
}

export const damagedFault = ({ name, orElse }: DiskOwner, disk: string, said: string): Fault =>
  new Fault(
    'native_failed',
    `the file system of ${name} is damaged: ${said}; look at it with: e2fsck -n ${disk} and repair it with: e2fsck -f ${disk} while nothing uses it, or ${orElse}`,
  )

/** Lets the file system of a disk that is not mounted fill its file. */
export async function growUnmounted(folder: string, disk: string, whose: DiskOwner): Promise<void> {
  await repairDisk(folder, disk, { whose, evenIfClean: true })
  await runLockedOk(folder, ['resize2fs', disk])
}

/** A UUID of its own for a copy. */
export async function renewUuid(folder: string, disk: string): Promise<void> {
  await runLockedOk(folder, ['tune2fs', '-U', 'random', disk])
}

/** The loop device that has a disk. */
async function deviceOf(disk: string): Promise<string | undefined> {
  const options = { timeoutMs: commandTimeoutMs }
  const found = await runOk('losetup', ['-j', disk, '-n', '-O', 'NAME'], options)
  return found.trim().split('\n')[0] || undefined
}

/**
 * Waits until no file system is on a disk any more. An unmount ends it only here: whatever copied our mounts meanwhile (a
 * mount namespace of its own, as each program in a sandbox has) keeps it alive, and e2fsck would write below it. Undefined, or
 * the loop device that is still there after a while.
 */
export async function waitForRelease(disk: string): Promise<string | undefined> {
  const until = performance.now() + releaseTimeoutMs
  for (let waitMs = 5; ; waitMs = Math.min(200, waitMs * 2)) {
    const device = await deviceOf(disk)
    if (!device || performance.now() > until) return device
    await systemClock.sleep(waitMs)
  }
}

/**
 * Lets a mounted file system fill its file, under its writers. False where the kernel does not let this process do that
 * (it needs CAP_SYS_RESOURCE): the next mount does it.
 */
export async function growMounted(disk: string): Promise<boolean> {
  const device = await deviceOf(disk)
  if (!device) throw new Fault('native_failed', `${disk} is mounted but on no loop device`)
  await runOk('losetup', ['-c', device], { timeoutMs: commandTimeoutMs })
  for (let tries = 1; ; tries++) {
    const result = await run('resize2fs', [device], { timeoutMs: longTimeoutMs })
    if (result.code === 0) return true
    if (/Permission denied|Operation not permitted/.test(result.stderr)) return false
    // It may have read the superblock while the kernel wrote it, and then finds its checksum wrong.
    if (tries >= growTriesMax) {
      throw new Fault('native_failed', `resize2fs ${device} failed: ${result.stderr.trim()}`)
    }
    await systemClock.sleep(growRetryMs * tries)
  }
}

/** Makes a file at least this long; what is new reads as zeros and takes no space. */
export async function lengthen(disk: string, bytes: number): Promise<void> {
  const file = await open(disk, 'r+')
  try {
    if ((await file.stat()).size < bytes) await file.truncate(bytes)
    await file.sync()
  } finally {
    await file.close()
  }
}

/** A file's or a folder's own entry is on disk when this resolves. */
export async function flush(path: string): Promise<void> {
  const file = await open(path, 'r')
  try {
    await file.sync()
  } finally {
    await file.close()
  }
}
