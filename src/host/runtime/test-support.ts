import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { newMachineId, ulid } from '#core/ids.ts'
import { runOk } from '#sys/process.ts'
import type { DriverCapabilities, StartSpec } from './driver.ts'

/** A place with an image of one static busybox, for tests of drivers. */
export interface Workshop {
  dir: string
  squashfsPath: string
  netnsPath: string
  /** A start of `argv`; what a test does not say has plain values. */
  spec(argv: string[], given?: Partial<StartSpec>): StartSpec
  /** A volume as a driver wants it, and what a machine wrote to it. */
  volume(kind: DriverCapabilities['volumes']): Promise<TestVolume>
  /** The output of a machine, without the prefixes of its log's lines. */
  output(spec: StartSpec): string
  /** The same in lines. */
  outputOf(spec: StartSpec): string[]
  /** Another image: the same, and a file `/marker` that says `second`. */
  secondImage(): Promise<string>
  close(): Promise<void>
}

export interface TestVolume {
  source: string
  read: (file: string) => Promise<string>
}

async function makeVolume(dir: string, kind: DriverCapabilities['volumes']): Promise<TestVolume> {
  const source = join(dir, 'volume')
  if (kind === 'folder') {
    mkdirSync(source, { recursive: true })
    return { source, read: async (file) => readFileSync(join(source, file), 'utf8') }
  }
  await runOk('mkfs.ext4', ['-q', '-F', source, '32M'])
  return { source, read: (file) => runOk('debugfs', ['-R', `cat /${file}`, source]) }
}

/** The lines in a log file, those put together that came in parts. */
function linesOf(log: string): string[] {
  const begun: Record<string, string> = {}
  const lines: string[] = []
  for (const row of log.split('\n').filter(Boolean)) {
    const [, stream = '', tag, ...words] = row.split(' ')
    const line = (begun[stream] ?? '') + words.join(' ')
    begun[stream] = tag === 'P' ? line : ''
    if (tag !== 'P') lines.push(line)
  }
  return [...lines, ...Object.values(begun).filter(Boolean)]
}

/** gensquashfs: everything is root's, and quick rather than small. */
export const packing = ['--quiet', '--all-root', '--compressor', 'gzip', '--comp-extra', 'level=1']

const applets =
  'sh sleep cat echo id pwd env hostname ls nc kill true false touch dd head ps grep sync mount unshare ping awk tr httpd ip wget stty wc date'

/** Says its argument to /.fly/api, then what it hears until the end of that: "… end". */
const askProgram = `
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
int main(int argc, char **argv) {
  struct sockaddr_un at = {.sun_family = AF_UNIX, .sun_path = "/.fly/api"};
  int fd = socket(AF_UNIX, SOCK_STREAM, 0);
  if (argc < 2 || connect(fd, (struct sockaddr *)&at, sizeof at)) return 1;
  write(fd, argv[1], strlen(argv[1]));
  char heard[4096];
  for (ssize_t got; (got = read(fd, heard, sizeof heard)) > 0;) write(1, heard, got);
  write(1, " end\\n", 5);
}`

async function buildImage(dir: string, name = 'image'): Promise<string> {
  const root = join(dir, name)
  for (const folder of ['bin', 'etc', 'proc', 'sys', 'dev', 'tmp', 'root']) {
    mkdirSync(join(root, folder), { recursive: true })
  }
  chmodSync(join(root, 'tmp'), 0o1777)
  copyFileSync('/bin/busybox', join(root, 'bin/busybox'))
  chmodSync(join(root, 'bin/busybox'), 0o755)
  for (const applet of applets.split(' ')) symlinkSync('busybox', join(root, 'bin', applet))
  const source = join(dir, 'ask.c')
  writeFileSync(source, askProgram)
  await runOk('musl-gcc', ['-static', '-Os', '-w', '-o', join(root, 'bin/ask'), source])
  // A trap: the folder of the host that holds the test.
  symlinkSync(`../../../../../../../..${dir}`, join(root, 'away'))
  writeFileSync(
    join(root, 'etc/passwd'),
    'root:x:0:0::/root:/bin/sh\nweb:x:1000:1000::/tmp:/bin/sh\n',
  )
  writeFileSync(join(root, 'etc/group'), 'root:x:0:\nweb:x:1000:\nextra:x:2000:web\n')
  if (name === 'second') writeFileSync(join(root, 'marker'), 'second\n')
  const squashfs = join(dir, `${name}.sqfs`)
  await runOk('gensquashfs', [...packing, '--pack-dir', root, squashfs])
  rmSync(root, { recursive: true })
  return squashfs
}

export async function openWorkshop(): Promise<Workshop> {
  const dir = mkdtempSync(join(tmpdir(), 'hangar-runtime-'))
  const squashfsPath = await buildImage(dir)
  const netns = `hgrtest-${dir.slice(-6)}`
  await runOk('ip', ['netns', 'add', netns])
  const netnsPath = `/run/netns/${netns}`
  return {
    dir,
    squashfsPath,
    netnsPath,
    spec: (argv, given = {}) => {
      const id = newMachineId()
      return {
        id,
        instanceId: ulid(),
        squashfsPath,
        argv,
        env: {},
        user: '',
        workdir: '',
        hostname: id,
        hosts: '127.0.0.1 localhost\n',
        resolvConf: 'nameserver 192.0.2.53\n',
        files: [],
        mounts: [],
        netnsPath,
        // Beside other tests a machine of the shared kind would wait for all of them.
        limits: { cpus: 1, cpuKind: 'performance', memoryMb: 256 },
        logFile: join(dir, `${id}.log`),
        tty: false,
        ...given,
      }
    },
    volume: (kind) => makeVolume(dir, kind),
    output: (spec) => linesOf(readFileSync(spec.logFile, 'utf8')).join('\n'),
    outputOf: (spec) =>
      existsSync(spec.logFile) ? linesOf(readFileSync(spec.logFile, 'utf8')) : [],
    secondImage: () => buildImage(dir, 'second'),
    close: async () => {
      await runOk('ip', ['netns', 'delete', netns])
      // A driver that still empties its trash makes a removal stop half way, without an error.
      while (existsSync(dir)) {
        rmSync(dir, { recursive: true, force: true, maxRetries: 10, retryDelay: 20 })
      }
    },
  }
}
