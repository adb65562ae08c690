import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { Fault } from '#core/fault.ts'
import { readTextFile } from './files.ts'

export interface FileLock {
  /** Made when it is missing. */
  file: string
  /** For others who want it: what its holder does, e.g. `hangar up`. */
  purpose: string
  /** How long another holder is waited for. */
  waitMs: number
}

/** Of flock, when another holds the file. */
const takenCode = 75

/**
 * Does something while no other process on this machine holds the file. A `flock` of the kernel, held by a `cat` that ends
 * with its input: a holder that dies lets go. A Fault (`conflict`) that names the holder when it is not free in
 * time; `native_failed` when it cannot be locked at all.
 */
export async function withFileLock<T>(
  { file, purpose, waitMs }: FileLock,
  act: () => Promise<T>,
): Promise<T> {
  const args = [
    '--exclusive',
    '--conflict-exit-code',
    String(takenCode),
    '--timeout',
    String(waitMs / 1000),
    file,
  ]
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
  if (!held && child.exitCode !== takenCode) {
    throw new Fault('native_failed', `${file} cannot be locked: flock ended with ${child.exitCode}`)
  }
  if (!held) {
    const holder = readTextFile(file)?.trim() || 'another process'
    throw new Fault('conflict', `${holder} holds ${file}; wait for it and try again`)
  }
  try {
    writeFileSync(file, `${purpose} (pid ${process.pid})\n`)
    return await act()
  } finally {
    child.stdin.end()
    await ended
  }
}
