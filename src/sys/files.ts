import {
  closeSync,
  fsyncSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeSync,
  readSync,
} from 'node:fs'
import { dirname } from 'node:path'

/** Writes a file whole or not at all, and on disk before it returns: temporary name, fsync, rename, fsync of the folder. */
export function writeFileAtomic(path: string, data: string | Buffer, mode = 0o644): void {
  const temporary = `${path}.${process.pid}.tmp`
  const fd = openSync(temporary, 'w', mode)
  try {
    const bytes = typeof data === 'string' ? Buffer.from(data) : data
    for (let at = 0; at < bytes.length;) at += writeSync(fd, bytes, at)
    fsyncSync(fd)
  } finally {
    closeSync(fd)
  }
  renameSync(temporary, path)
  const folder = openSync(dirname(path), 'r')
  try {
    fsyncSync(folder)
  } finally {
    closeSync(folder)
  }
}

export function readTextFile(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw error
  }
}

/** A JSON file of our own making, or undefined when it is missing or was cut short. Validate before trusting it. */
export function readJsonFile(path: string): unknown {
  const text = readTextFile(path)
  if (text === undefined) return undefined
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

export function removeFile(path: string): void {
  rmSync(path, { force: true })
}

/** The last `bytesMax` bytes of a file, for messages. */
export function tailOfFile(path: string, bytesMax: number): string {
  try {
    const size = statSync(path).size
    const fd = openSync(path, 'r')
    try {
      const buffer = Buffer.alloc(Math.min(size, bytesMax))
      readSync(fd, buffer, 0, buffer.length, size - buffer.length)
      return buffer.toString('utf8')
    } finally {
      closeSync(fd)
    }
  } catch {
    return ''
  }
}
