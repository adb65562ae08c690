import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { setPriority } from 'node:os'
import { Fault } from '#core/fault.ts'

/**
 * A tar2sqfs that turns the archive we write into a squashfs file. zstd level 1: on a 195 MB Debian tree with 2 cores it
 * takes 0.55 s to 73 MB, where gzip level 1 takes 1.5 s to 74 MB and reads half as fast, and lz4 takes 0.42 s to 93 MB.
 */
export interface SquashWriter {
  write(bytes: Buffer): void
  /** Resolves when more may be written; rejects when the program has died. */
  ready(): Promise<void>
  /** Ends the archive; resolves when the file is complete. */
  finish(): Promise<void>
  /** Kills the program. Safe at any time. */
  abort(): void
}

const niceness = 10
const wordsBytesMax = 4000

export function openSquashWriter(path: string): SquashWriter {
  const child = spawn(
    'tar2sqfs',
    ['--quiet', '--force', '--no-skip', '--compressor', 'zstd', '--comp-extra', 'level=1', path],
    { stdio: ['pipe', 'ignore', 'pipe'] },
  )
  let words = ''
  let failure: Error | undefined
  child.stderr.on('data', (chunk: Buffer) => {
    words = (words + chunk.toString('utf8')).slice(-wordsBytesMax)
  })
  const fail = (why: string) =>
    new Fault('native_failed', `tar2sqfs ${why}: ${words.trim() || 'it said nothing'}`)
  const ended = new Promise<void>((resolve, reject) => {
    child.on('error', (cause) => {
      failure = new Fault(
        'native_failed',
        `cannot run tar2sqfs: ${cause.message}; install the Debian package squashfs-tools-ng`,
        { cause },
      )
      reject(failure)
    })
    child.on('close', (code, signal) => {
      if (code === 0) return resolve()
      failure ??= fail(signal ? `was killed by ${signal}` : `failed with exit code ${code}`)
      reject(failure)
    })
  })
  ended.catch(() => {}) // Told by ready() and finish().
  child.stdin.on('error', () => {}) // A dead program closes its input: its exit code says why.
  if (child.pid !== undefined) {
    try {
      // Machines that run go before images that are being made.
      setPriority(child.pid, niceness)
    } catch {
      // It is gone already, and its exit is reported.
    }
  }
  return {
    write: (bytes) => {
      child.stdin.write(bytes)
    },
    async ready() {
      if (failure) throw failure
      if (!child.stdin.writableNeedDrain) return
      const waiting = new AbortController()
      try {
        await Promise.race([once(child.stdin, 'drain', { signal: waiting.signal }), ended])
      } finally {
        waiting.abort()
      }
      // The program may have ended well before it had read everything: that is no success.
      if (child.stdin.destroyed) throw fail('ended before the image did')
    },
    async finish() {
      if (!failure) child.stdin.end()
      await ended
    },
    abort: () => {
      child.kill('SIGKILL')
    },
  }
}
