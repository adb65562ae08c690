import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { Fault } from '#core/fault.ts'

/**
 * Does something while no other process on this machine holds the file, which is made when it is missing. A `flock` of the
 * kernel, held by a `cat` that ends with its input: a holder that dies lets go. A Fault (`timeout`) when another holds it
 * for longer than that.
 */
export async function withFileLock<T>(
  file: string,
  { timeoutMs }: { timeoutMs: number },
  act: () => Promise<T>,
): Promise<T> {
  const args = ['--exclusive', '--timeout', String(timeoutMs / 1000), file]
  const child = spawn('flock', [...args, 'sh', '-c', 'echo held; exec cat >/dev/null'], {
    stdio: ['pipe', 'pipe', 'ignore'],
  })
  child.stdin.on('error', () => {}) // It ended early: its end says so.
  const ended = new Promise<void>((resolve) => {
    child.once('close', () => resolve())
    child.once('error', () => resolve())
  })
  const held = await Promise.race([
    once(child.stdout, 'data').then(() => true),
    ended.then(() => false),
  ])
  if (!held) {
    throw new Fault(
      'timeout',
      `${file} could not be locked within ${timeoutMs / 1000} s; see who holds it (fuser ${file})`,
    )
  }
  try {
    return await act()
  } finally {
    child.stdin.end()
    await ended
  }
}
