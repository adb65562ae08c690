import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { mkdir, rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { Transform, type Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { Fault, messageOf } from '#core/fault.ts'
import { run } from '#sys/process.ts'
import { requireRoom } from './disk-copy.ts'
import { lockArgs, longTimeoutMs } from './disk-programs.ts'

const diskName = 'disk.img'

/** The same bytes for the same disk, wherever and whenever: holes are named and not sent. */
const packArgs = (folder: string): string[] =>
  [
    '--create --sparse --format=gnu --mtime=@0 --mode=0600 --owner=0 --group=0'.split(' '),
    ['--numeric-owner', '--directory', folder, diskName],
  ].flat()

/** The disk of a folder as a sparse tar. A stream that was cut short does not have the disk's digest. */
export function packDisk(folder: string): Readable {
  const child = spawn('tar', packArgs(folder), { stdio: ['ignore', 'pipe', 'ignore'] })
  child.on('error', (error) => child.stdout.destroy(error))
  return child.stdout
}

/** sha256 of what `packDisk` gives, as hexadecimal digits. */
export async function digestOf(folder: string): Promise<string> {
  const script = 'set -o pipefail; "$@" | sha256sum'
  const words = ['-n', '10', 'bash', '-c', script, 'digest', 'tar', ...packArgs(folder)]
  const { code, stdout, stderr } = await run('nice', words, { timeoutMs: 6 * longTimeoutMs })
  const digest = stdout.slice(0, 64)
  if (code !== 0 || !/^[0-9a-f]{64}$/.test(digest)) {
    throw new Fault('native_failed', `cannot read the disk in ${folder}: ${stderr.trim()}`)
  }
  return digest
}

export interface DiskStream {
  body: Readable
  /** sha256 of the whole stream. */
  digest: string
  /** What the disk in it takes. */
  bytes: number
}

/**
 * Writes the disk of a stream to `target`, in the same folder.
 * @throws Fault `native_failed` when it is not the stream that was promised
 */
export async function unpackDisk(
  folder: string,
  target: string,
  { stream, signal }: { stream: DiskStream; signal: AbortSignal },
): Promise<void> {
  await requireRoom(folder, stream.bytes)
  const incoming = join(folder, 'incoming')
  await rm(incoming, { recursive: true, force: true })
  await mkdir(incoming, { mode: 0o700 })
  const words = ['tar', '--extract', '--sparse', '--no-same-owner', '--directory', incoming]
  const args = [...lockArgs(folder, 'exclusive'), ...words, diskName]
  const child = spawn('flock', args, { stdio: ['pipe', 'ignore', 'pipe'] })
  const ended = once(child, 'exit') as Promise<[number | null]>
  let said = ''
  child.stderr.on('data', (chunk: Buffer) => (said = (said + chunk.toString()).slice(-2000)))
  const hash = createHash('sha256')
  const hashing = new Transform({
    transform(chunk: Buffer, _, done) {
      hash.update(chunk)
      done(null, chunk)
    },
  })
  try {
    await pipeline(stream.body, hashing, child.stdin, { signal })
  } catch (error) {
    child.kill('SIGKILL')
    await ended.catch(() => {})
    throw new Fault('native_failed', `the copy was cut short: ${said || messageOf(error)}`, {
      cause: error,
    })
  }
  const [code] = await ended
  if (code !== 0) throw new Fault('native_failed', `cannot unpack the copy: ${said}`)
  const got = hash.digest('hex')
  if (got !== stream.digest) {
    throw new Fault('native_failed', `the copy is not whole: it is ${got} and not ${stream.digest}`)
  }
  await rename(join(incoming, diskName), target)
  await rm(incoming, { recursive: true, force: true })
}
