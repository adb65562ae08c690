import { open, stat, statfs } from 'node:fs/promises'
import { getSystemErrorMap } from 'node:util'
import { systemClock } from '#core/clock.ts'
import { Fault } from '#core/fault.ts'
import { diskFull, saysDiskFull } from '#sys/disk-full.ts'
import { jailedDisk, runJailed } from '#sys/jail.ts'
import { run, runOk, type RunOptions, type RunResult } from '#sys/process.ts'

const commandTimeoutMs = 60_000
/** e2fsck and resize2fs of 500 GB that are nearly full. */
export const longTimeoutMs = 10 * commandTimeoutMs
/** What a host process that was killed had begun is waited for, and holds its lock until it ends. */
const lockWaitSeconds = 120
const lockBusyCode = 75
/** A program's way into its sandbox takes less. */
const releaseTimeoutMs = 5_000

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
      `${folder} has been in use by a program of an earlier host process for ${lockWaitSeconds} s; try again later`,
      { cause: new Error(`see who has it with: fuser -v ${folder}`) },
    )
  }
  return result
}

/** Runs a program on a disk that a stranger may have written, with no other rights than to that. */
const runOnDisk = (folder: string, disk: string, words: readonly string[]): Promise<RunResult> =>
  runJailed(disk, [...words, jailedDisk], {
    seconds: longTimeoutMs / 1000,
    run: (jailed, options) =>
      runLocked(folder, jailed, { ...options, timeoutMs: longTimeoutMs + lockWaitSeconds * 2_000 }),
  })

function requireDone(words: readonly string[], { code, stdout, stderr }: RunResult): void {
  if (code === 0) return
  if (saysDiskFull(stderr)) throw diskFull()
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
  const words = ['mkfs.ext4', '-q', '-F', '-m', '0', ...features, disk]
  requireDone(words, await runLocked(folder, words))
}

/**
 * Undefined when it is mounted, otherwise why it is not. What the kernel does about an error in it is not for its content to
 * say, which could ask for a panic.
 */
export async function mountDisk(disk: string, point: string): Promise<string | undefined> {
  const options = 'loop,nodev,nosuid,noatime,errors=remount-ro'
  const args = ['-t', 'ext4', '-o', options, disk, point]
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
  const words = ['e2fsck', ...(how.evenIfClean ? ['-f'] : []), '-p']
  const { code, stdout, stderr } = await runOnDisk(folder, disk, words)
  if (code <= repairedMax) return code
  if (saysDiskFull(stdout + stderr)) throw diskFull()
  const said = `${stdout} ${stderr}`.replaceAll(`${jailedDisk}: `, '').replaceAll(/\s+/g, ' ')
  throw damagedFault(how.whose, disk, said.trim().slice(0, 300))
}

/** For messages: what a disk is, and what its user does when it cannot be mended. */
export interface DiskOwner {
  name: string
  orElse: string
}

/** Who runs the host finds the disk by the cause. */
export const damagedFault = ({ name, orElse }: DiskOwner, disk: string, said: string): Fault =>
  new Fault(
    'native_failed',
    `the file system of ${name} is damaged: ${said}; ${orElse}, or have it repaired by who runs the host, whose log says how`,
    {
      cause: new Error(
        `look at it with: e2fsck -n ${disk} and repair it with: e2fsck -f ${disk} while nothing uses it`,
      ),
    },
  )

/** Lets the file system of a disk that is not mounted fill its file. */
export async function growUnmounted(folder: string, disk: string, whose: DiskOwner): Promise<void> {
  await repairDisk(folder, disk, { whose, evenIfClean: true })
  requireDone(['resize2fs', disk], await runOnDisk(folder, disk, ['resize2fs']))
}

/** A UUID of its own for a copy. */
export async function renewUuid(folder: string, disk: string): Promise<void> {
  const words = ['tune2fs', '-U', 'random']
  requireDone([...words, disk], await runOnDisk(folder, disk, words))
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

/** EXT4_IOC_RESIZE_FS: so many blocks, of the file system that has this folder. Exits with the number of an error. */
const growScript = `
  my ($point, $blocks) = @ARGV;
  open(my $folder, '<', $point) or exit($! + 0);
  my $wanted = pack('Q', $blocks);
  exit(ioctl($folder, 0x40086610, $wanted) ? 0 : $! + 0);
`
const notPermitted = 1

/**
 * Lets a mounted file system fill its file, under its writers. The kernel alone does it: resize2fs would read, as root, what
 * they wrote. False where the kernel does not let this process do that (it needs CAP_SYS_RESOURCE): the next mount does it.
 */
export async function growMounted(disk: string, point: string): Promise<boolean> {
  const device = await deviceOf(disk)
  if (!device) throw new Fault('native_failed', `${disk} is mounted but on no loop device`)
  await runOk('losetup', ['-c', device], { timeoutMs: commandTimeoutMs })
  const blocks = Math.floor((await stat(disk)).size / (await statfs(point)).bsize)
  const words = ['-e', growScript, point, String(blocks)]
  const { code } = await run('perl', words, { timeoutMs: longTimeoutMs })
  if (code === notPermitted) return false
  if (code === 0) return true
  const [name] = getSystemErrorMap().get(-code) ?? [`error ${code}`]
  throw new Fault('native_failed', `the file system at ${point} does not grow: ${name}`)
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
