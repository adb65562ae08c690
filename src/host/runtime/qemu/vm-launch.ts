import { spawn } from 'node:child_process'
import {
  chmodSync,
  chownSync,
  closeSync,
  constants,
  mkdirSync,
  openSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { once } from 'node:events'
import { join } from 'node:path'
import { Fault } from '#core/fault.ts'
import { bindLine, programParts, withoutRights } from '#sys/jail.ts'
import { processStartTime, type ProcessIdentity } from '#sys/process.ts'
import { architecture, fds, sockets } from './qemu-args.ts'
import type { VmFolder, VmRecord } from './vm-folder.ts'

/**
 * Makes itself a place, waits for the word, then becomes QEMU: in the machine's network, as its user, without a way to more
 * rights. Its root holds programs and libraries of the host, its own folder, and devices of its own (so that its user may
 * open tap and KVM, and nothing else). No other mount of the host is copied: volumes and images would stay in use as long as
 * this VM lives. The process stays the same one. Somebody waits for it: few programs are run.
 */
const launcher = `
exec nsenter --net="$1" unshare --mount --ipc --uts /bin/sh -c '
  mount --all --fstab "$2" && mkdir -p /dev/dev/net || exit 1
  mknod -m 666 /dev/dev/null c 1 3 && mknod -m 666 /dev/dev/zero c 1 5 || exit 1
  mknod -m 666 /dev/dev/urandom c 1 9 && mknod -m 666 /dev/dev/net/tun c 10 200 || exit 1
  [ "$4" = kvm ] && { mknod -m 666 /dev/dev/kvm c 10 232 || exit 1; }
  links=$5
  [ -z "$links" ] || cp -P $links /dev || exit 1
  cd /dev && pivot_root . . && umount -l . && cd /run || exit 1
  ulimit -c 0
  uid=$3; shift 5
  read -r word && [ "$word" = go ] || exit 1
  exec ${withoutRights} "$@" </dev/null
' sh "$@"
`

/** The root as mount reads it, built on /dev, which is needed no more. */
function rootTable(run: string, folders: string[]): string {
  const line = (from: string, to: string) => bindLine(from, `/dev${to}`, 'bind,X-mount.mkdir')
  return [
    'none /dev tmpfs size=64k,mode=755,nosuid,noexec',
    ...folders.map((path) => line(path, path)),
    line('/proc', '/proc'),
    line(run, '/run'),
    '',
  ].join('\n')
}

export interface VmmProcess {
  identity: ProcessIdentity
  /** Resolves when it is gone. */
  gone: Promise<void>
  /** Lets it begin. It is to be written down, and in its cgroup, before. */
  go(): void
  /** Ends one that waits for the word: as our own end does. */
  giveUp(): void
}

const readWrite = constants.O_RDWR
const readOnly = constants.O_RDONLY

interface VmmFile {
  /** The number under which the VMM finds it. */
  fd: number
  path: string
  flags: number
}

/** The files of a VMM. */
export function filesOf(at: VmFolder, record: VmRecord, options: { incoming: boolean }): VmmFile[] {
  const upper = record.squashfsPath === '/dev/null' ? '/dev/null' : at.upper
  const memory = options.incoming ? at.memoryFile : '/dev/null'
  return [
    { fd: fds.kernel, path: record.kernelPath, flags: readOnly },
    { fd: fds.initramfs, path: record.initramfsPath, flags: readOnly },
    { fd: fds.image, path: record.squashfsPath, flags: readOnly },
    { fd: fds.upper, path: upper, flags: readWrite },
    { fd: fds.memory, path: memory, flags: readOnly },
    ...record.volumes.map(({ source }, i) => {
      return { fd: fds.volumes + i, path: source, flags: readWrite }
    }),
  ]
}

function openFiles(wanted: VmmFile[]): number[] {
  const opened: number[] = []
  try {
    for (const { fd, path, flags } of wanted) opened[fd - fds.kernel] = openSync(path, flags)
  } catch (error) {
    for (const fd of opened) closeSync(fd)
    throw error
  }
  return opened
}

/** Starts a VMM and leaves it waiting. It outlives us: a session of its own, its words in a file. */
export function spawnVmm(
  at: VmFolder,
  record: VmRecord,
  options: { accel: string; incoming: boolean },
): VmmProcess {
  rmSync(at.run, { recursive: true, force: true })
  mkdirSync(at.run, { mode: 0o700 })
  chownSync(at.run, record.uid, record.uid)
  const { folders, links } = programParts(['/etc', '/opt'])
  writeFileSync(at.mountsFile, rootTable(at.run, folders), { mode: 0o600 })
  const files = openFiles(filesOf(at, record, options))
  const log = openSync(at.vmmLog, 'w', 0o600)
  // Loaded before the machine may read from its network: paused, until the snapshot is no more.
  const incoming = options.incoming ? ['-incoming', `fd:${fds.memory}`, '-S'] : []
  const { accel } = options
  const command = [architecture().program, ...record.args, ...incoming]
  const child = spawn(
    '/bin/sh',
    [
      '-c',
      launcher,
      'sh',
      record.netnsPath,
      at.mountsFile,
      String(record.uid),
      accel,
      links.join(' '),
      ...command,
    ],
    {
      cwd: at.run,
      detached: true,
      stdio: ['pipe', log, log, ...files],
      env: { PATH: process.env['PATH'] ?? '' },
    },
  )
  for (const fd of [log, ...files]) closeSync(fd)
  child.on('error', () => {}) // Reported below: no pid.
  if (child.pid === undefined || !child.stdin) {
    throw new Fault('native_failed', `the machine's monitor could not be started: /bin/sh failed`)
  }
  const gone = once(child, 'exit').then(() => {})
  child.unref()
  const { stdin } = child
  stdin.on('error', () => {}) // It ended early: `gone` says so.
  return {
    identity: { pid: child.pid, startTime: processStartTime(child.pid) ?? 0 },
    gone,
    go: () => stdin.end('go\n'),
    giveUp: () => stdin.end(),
  }
}

/** Short however deep the machine's folder is, and of this very VMM alone. */
export const socketPath = (pid: number, name: keyof typeof sockets): string =>
  join('/proc', String(pid), 'cwd', sockets[name])

/** A file that VMMs of any user read through a descriptor of ours. */
export const readableByVmms = (path: string): void => chmodSync(path, 0o644)
