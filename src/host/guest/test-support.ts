import { spawn, type ChildProcess } from 'node:child_process'
import {
  chmodSync,
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { runOk } from '#sys/process.ts'
import { eventually } from '#sys/test-support.ts'
import {
  dialUnix,
  Guest,
  type GuestExit,
  type GuestOptions,
  type GuestOutput,
  type GuestRun,
} from './index.ts'

export const repository = resolve(import.meta.dirname, '../../..')
export const initPath = join(repository, 'build/guest/init')

const applets =
  'sh sleep cat echo id pwd env ls nc kill true false touch dd head ps grep tr stty wc httpd seq mkdir sha256sum mkfifo rm ln readlink'

/** A small root with busybox, where PID 1 runs in namespaces of its own, without a VM. */
export async function buildRoot(): Promise<string> {
  await runOk(join(repository, 'guest/build'), [])
  const root = mkdtempSync(join(tmpdir(), 'hangar-guest-'))
  for (const folder of ['bin', 'etc', 'proc', 'dev', 'tmp', 'root', 'run'])
    mkdirSync(join(root, folder))
  chmodSync(root, 0o755)
  chmodSync(join(root, 'tmp'), 0o1777)
  copyFileSync('/bin/busybox', join(root, 'bin/busybox'))
  chmodSync(join(root, 'bin/busybox'), 0o755)
  for (const applet of applets.split(' ')) symlinkSync('busybox', join(root, 'bin', applet))
  copyFileSync(initPath, join(root, 'init'))
  writeFileSync(
    join(root, 'etc/passwd'),
    'root:x:0:0::/root:/bin/sh\nweb:x:1000:1000::/tmp:/bin/sh\n',
  )
  writeFileSync(join(root, 'etc/group'), 'root:x:0:\nweb:x:1000:\nextra:x:2000:web\n')
  return root
}

export interface Box {
  socket: string
  /** Of `unshare`: it exits with PID 1's code. */
  process: ChildProcess
  over: Promise<number | null>
}

/** Starts PID 1 and waits until it listens. */
export async function startBox(root: string): Promise<Box> {
  const socket = `/run/${Math.random().toString(36).slice(2)}.sock`
  const mounts =
    'mount --bind "$0" "$0" && mount --rbind /dev "$0/dev" && mount -t proc proc "$0/proc" && mount -t devpts -o newinstance,ptmxmode=666 devpts "$0/dev/pts"'
  // What the host has mounted is left behind: a copy of it would keep it in use for the tests beside this one.
  const script = `${mounts} && mount --bind "$0/dev/pts/ptmx" "$0/dev/ptmx" && cd "$0" && pivot_root . . && exec /bin/busybox sh -c '/bin/busybox umount -l . && exec /init --listen "$0"' "$1"`
  const process = spawn('unshare', ['-pfm', '--kill-child', 'sh', '-c', script, root, socket], {
    stdio: ['ignore', 'inherit', 'inherit'],
  })
  const over = new Promise<number | null>((done) => process.on('exit', (code) => done(code)))
  await eventually('PID 1 listens', async () => {
    const channel = await dialUnix(join(root, socket)).catch(() => undefined)
    channel?.destroy()
    return channel !== undefined
  })
  return { socket: join(root, socket), process, over }
}

export interface Heard {
  guest: Guest
  outputs: GuestOutput[]
  exits: GuestExit[]
  notes: string[]
  text: (stream?: 'stdout' | 'stderr') => string
}

/** A host for a box, that keeps what it hears. */
export function listenTo(box: Box, given: Partial<GuestOptions> = {}): Heard {
  const outputs: GuestOutput[] = []
  const exits: GuestExit[] = []
  const notes: string[] = []
  const guest = new Guest({
    name: 'test',
    dial: () => dialUnix(box.socket),
    padded: false,
    onOutput: (output) => void outputs.push({ ...output, data: Buffer.from(output.data) }),
    onExit: (exit) => void exits.push(exit),
    onNote: (words) => void notes.push(words),
    ...given,
  })
  const text = (stream?: string) =>
    outputs
      .filter((output) => stream === undefined || output.stream === stream)
      .map((output) => output.data.toString('utf8'))
      .join('')
  return { guest, outputs, exits, notes, text }
}

export function plainRun(argv: string[], given: Partial<GuestRun> = {}): GuestRun {
  return { argv, env: {}, user: '', workdir: '', ...given }
}

export function removeRoot(root: string): void {
  rmSync(root, { recursive: true, force: true })
}
