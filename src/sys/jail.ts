import { randomInt } from 'node:crypto'
import { lstatSync } from 'node:fs'
import { chown, stat } from 'node:fs/promises'
import { cpus } from 'node:os'
import { Fault } from '#core/fault.ts'
import type { RunOptions, RunResult } from './process.ts'

const programFolders = ['/usr', '/bin', '/sbin', '/lib', '/lib32', '/lib64']

/** Where programs and libraries are: folders, and where a system has all of them in one, links to it. */
export function programParts(others: string[] = []): { folders: string[]; links: string[] } {
  const found = [...programFolders, ...others].flatMap((path) => {
    const about = lstatSync(path, { throwIfNoEntry: false })
    return about ? [{ path, isLink: about.isSymbolicLink() }] : []
  })
  const pathsOf = (wanted: boolean) =>
    found.filter(({ isLink }) => isLink === wanted).map(({ path }) => path)
  return { folders: pathsOf(false), links: pathsOf(true) }
}

/** A bind mount in the words of fstab(5). */
export function bindLine(from: string, to: string, options: string): string {
  const escaped = from.replaceAll(
    /[\s\\#]/g,
    (c) => `\\${c.charCodeAt(0).toString(8).padStart(3, '0')}`,
  )
  return `${escaped} ${to} none ${options}`
}

/** For a shell, before the words of a program that is to have no rights but those of the user $uid. */
export const withoutRights = `setpriv --reuid "$uid" --regid "$uid" --clear-groups \\
    --bounding-set=-all --inh-caps=-all --no-new-privs --`

/** The exit code of what keeps the program from running, and what is added to its own. */
const codes = { failed: 99, ran: 100, most: 100 }

/**
 * Builds a root in the place of /sys, which is needed no more, and runs the program in it. The shell stays, as the first
 * process of its namespace: with it ends whatever the program started. What it has open beside its own words is not handed
 * on: the folder that a lock is on would be a way to the files of the host.
 */
const script = `
  uid=$1 seconds=$2 blocks=$3 kib=$4 tasks=$5 table=$6 links=$7; shift 7
  exec 3<&- 4<&- 5<&- 6<&- 7<&- 8<&- 9<&-
  failed() { exit ${codes.failed}; }
  mount -t tmpfs -o size=64k,mode=755,nosuid,noexec none /sys || failed
  : >/sys/disk && printf %s "$table" >/sys/table && mount --all --fstab /sys/table || failed
  cd / && cp -a --parents dev/null $links /sys && : >/sys/table || failed
  cd /sys && pivot_root . . && umount -l . && cd / || failed
  ulimit -c 0 && ulimit -f "$blocks" && ulimit -v "$kib" && ulimit -n 64 && ulimit -s 1024 || failed
  ulimit -p "$tasks" 2>/dev/null || ulimit -u "$tasks" || failed
  timeout --signal KILL "$seconds" ${withoutRights} "$@"
  code=$?
  exit $((${codes.ran} + (code > ${codes.most} ? ${codes.most} : code)))
`

/** Users of such programs, a new one for each run, next to those of VMMs: no process of the system's own has such a number. */
const uidFirst = 1_946_157_056
const uids = 1 << 20
const mebibyte = 1024 * 1024
/** e2fsck of an empty disk, and what it remembers of each GB of one that is full of small files. */
const memory = { bytes: 512 * mebibyte, bytesPerGb: 4 * mebibyte }
/** Programs that read bitmaps have a thread for each processor. */
const sparedTasks = 8
const outputBytesMax = 64 * 1024
/** Where the program finds the disk. */
export const jailedDisk = '/disk'

const environment = {
  PATH: process.env['PATH'] ?? '',
  LC_ALL: 'C',
  /** It has no list of the host's mounts to look the disk up in. */
  EXT2FS_NO_MTAB_OK: '1',
  /** Each thread would take address space for memory of its own. */
  MALLOC_ARENA_MAX: '1',
}

export interface Jail {
  /** The program is ended then, by whoever is left: also when this process was killed. */
  seconds: number
  /** Runs these words, such as under a lock. */
  run(words: readonly string[], options: RunOptions): Promise<RunResult>
}

/**
 * Runs a program that reads and changes the file system of a disk, which a stranger may have written to attack it: as a user
 * of its own, without capabilities or a way to more rights, in namespaces of its own (no network), with a bound on time,
 * memory, processes and output. Of the host it sees programs and libraries, and this one file, which is never made larger.
 * @throws Fault `native_failed` when that cannot be had; then the program did not run
 */
export async function runJailed(
  disk: string,
  words: readonly string[],
  jail: Jail,
): Promise<RunResult> {
  const uid = uidFirst + randomInt(uids)
  // Inside, the file is opened by its name: whatever else is on the way to it, only its owner may.
  await chown(disk, uid, uid)
  try {
    const { size } = await stat(disk)
    const bytes = memory.bytes + Math.ceil(size / 1024 ** 3) * memory.bytesPerGb
    const limits = [jail.seconds, Math.ceil(size / 512), bytes / 1024, cpus().length + sparedTasks]
    const all = [...namespaceWords, ...[uid, ...limits].map(String), ...rootWords(disk), ...words]
    const result = await jail.run(all, { env: environment, outputBytesMax })
    if (result.code >= codes.ran) return { ...result, code: result.code - codes.ran }
    throw new Fault(
      'native_failed',
      `${words[0]} was not run, because its sandbox cannot be made: ${result.stderr.trim()}`,
    )
  } finally {
    await chown(disk, 0, 0)
  }
}

const namespaceWords = [
  'unshare --mount --ipc --uts --net --pid --fork --kill-child /bin/sh -c'.split(' '),
  [script, 'jail'],
].flat()

/** What the root is made of: a table for mount(8), and links. */
function rootWords(disk: string): string[] {
  const { folders, links } = programParts()
  const table = [
    ...folders.map((path) => bindLine(path, `/sys${path}`, 'bind,ro,nosuid,nodev,X-mount.mkdir')),
    bindLine(disk, `/sys${jailedDisk}`, 'bind,nosuid,nodev'),
    'proc /sys/proc proc subset=pid,nosuid,nodev,noexec,X-mount.mkdir',
  ]
  return [`${table.join('\n')}\n`, links.map((path) => path.slice(1)).join(' ')]
}
