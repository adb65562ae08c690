import { open, type FileHandle } from 'node:fs/promises'
import { LineJoiner, parseStoredLine, type StoredLine } from './stored-line.ts'

const chunkBytes = 256 * 1024
const newline = 0x0a

/** Reads one log file from a place in it and remembers how far it came, so that following never skips or repeats. */
export class LogFileReader {
  readonly path: string
  #offset: number | undefined
  #rest = Buffer.alloc(0)
  #joiner = new LineJoiner()

  constructor(path: string) {
    this.path = path
  }

  /**
   * The next whole lines, at most about `bytesMax` bytes of them, and whether the file had more. The first call begins
   * behind `since`, or without it with the last `bytesMax` bytes.
   */
  async read(
    bytesMax: number,
    since: bigint | undefined,
  ): Promise<{ lines: StoredLine[]; more: boolean }> {
    let file: FileHandle
    try {
      file = await open(this.path, 'r')
    } catch {
      return { lines: [], more: false } // Not there yet, or rotated away.
    }
    try {
      const { size } = await file.stat()
      if (this.#offset === undefined) await this.#begin(file, size, bytesMax, since)
      let at = this.#offset ?? 0
      // Shorter than what was read: it was rotated in place.
      if (size < at) {
        at = 0
        this.#rest = Buffer.alloc(0)
      }
      const lines: StoredLine[] = []
      const end = Math.min(size, at + bytesMax)
      while (at < end) {
        const buffer = Buffer.alloc(Math.min(chunkBytes, end - at))
        const { bytesRead } = await file.read(buffer, 0, buffer.length, at)
        if (bytesRead === 0) break
        at += bytesRead
        this.#take(buffer.subarray(0, bytesRead), lines)
      }
      this.#offset = at
      return {
        lines: since === undefined ? lines : lines.filter((l) => l.ns > since),
        more: at < size,
      }
    } finally {
      await file.close()
    }
  }

  #take(bytes: Buffer, lines: StoredLine[]): void {
    const all = this.#rest.length ? Buffer.concat([this.#rest, bytes]) : bytes
    let from = 0
    for (let at = all.indexOf(newline); at !== -1; at = all.indexOf(newline, from)) {
      const parsed = parseStoredLine(all.toString('utf8', from, at))
      const whole = parsed && this.#joiner.take(parsed)
      if (whole) lines.push(whole)
      from = at + 1
    }
    this.#rest = Buffer.from(all.subarray(from))
  }

  async #begin(
    file: FileHandle,
    size: number,
    bytesMax: number,
    since: bigint | undefined,
  ): Promise<void> {
    this.#offset =
      since === undefined ? Math.max(0, size - bytesMax) : await findMoment(file, size, since)
  }
}

/** An offset near which the lines behind `since` begin, never past them: lines of a file are in the order of time. */
async function findMoment(file: FileHandle, size: number, since: bigint): Promise<number> {
  let low = 0
  let high = size
  const buffer = Buffer.alloc(chunkBytes)
  while (high - low > chunkBytes) {
    const middle = Math.floor((low + high) / 2)
    const { bytesRead } = await file.read(buffer, 0, buffer.length, middle)
    const start = buffer.subarray(0, bytesRead).indexOf(newline) + 1
    const end = buffer.subarray(0, bytesRead).indexOf(newline, start)
    const line = end > start ? parseStoredLine(buffer.toString('utf8', start, end)) : undefined
    if (line && line.ns <= since) low = middle + start
    else high = middle
  }
  return low
}
