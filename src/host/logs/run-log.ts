import { readFileSync, rmSync } from 'node:fs'
import { open, type FileHandle } from 'node:fs/promises'
import { z } from 'zod'
import { systemClock } from '#core/clock.ts'
import { limits } from '#core/limits.ts'

export interface RunOutput {
  stream: 'stdout' | 'stderr'
  data: Buffer
  /** Milliseconds since the epoch. */
  at: number
  /** Of the first byte, in all output of this run. */
  offset: bigint
}

const placeSchema = z.object({
  /** Bytes of the log file, and of the output that is in it. */
  size: z.int(),
  offset: z.string().regex(/^\d+$/),
  /** Streams whose last line has no end yet. */
  open: z.array(z.enum(['stdout', 'stderr'])),
})
type Place = z.infer<typeof placeSchema>

const stepSchema = z.object({ before: placeSchema, after: placeSchema, ns: z.string() })

/** One write of it replaces the whole of the one before. */
const stepBytes = 512
const newline = 0x0a

/**
 * Writes the output of one run into its log file, each byte of it once, whoever writes: before each write the place file
 * says how far the log will be, so that the next process after a kill knows from the log's size what is in it.
 */
export class RunLog {
  readonly #file: FileHandle
  readonly #placeFile: FileHandle
  #place: Place
  #ns: bigint
  /** What may still be written at once; below 0 the writer waits. */
  #allowance: number = limits.logBurstBytesMax
  #allowedAt = performance.now()

  private constructor(file: FileHandle, placeFile: FileHandle, place: Place, ns: bigint) {
    this.#file = file
    this.#placeFile = placeFile
    this.#place = place
    this.#ns = ns
  }

  /** `placePath` is of this run alone: it is new, or what a process before us left. */
  static async open(logPath: string, placePath: string): Promise<RunLog> {
    const step = readStep(placePath)
    const file = await open(logPath, 'a', 0o640)
    try {
      const { size } = await file.stat()
      let place: Place = step?.after ?? { size, offset: '0', open: [] }
      // A write that did not happen, or not as a whole. A log that is shorter was cut since, after it.
      if (step && size >= step.before.size && size < step.after.size) {
        await file.truncate(step.before.size)
        place = step.before
      }
      const placeFile = await open(placePath, step ? 'r+' : 'w', 0o600)
      return new RunLog(file, placeFile, place, BigInt(step?.ns ?? 0))
    } catch (error) {
      await file.close()
      throw error
    }
  }

  /** All output before this is in the log. */
  get offset(): bigint {
    return BigInt(this.#place.offset)
  }

  /** Resolves when it is written, and later for a machine that writes faster than it may. */
  async write(output: RunOutput): Promise<void> {
    const end = output.offset + BigInt(output.data.length)
    const open = this.#place.open.filter((stream) => stream !== output.stream)
    if (output.data.at(-1) !== newline) open.push(output.stream)
    await this.#append(this.#format(output), { offset: String(end), open })
    await this.#slowDown()
  }

  /** Gives lines without an end one; after the last output. */
  async finish(at: number): Promise<void> {
    for (const stream of this.#place.open) {
      const text = this.#format({ stream, data: Buffer.from('\n'), at })
      const open = this.#place.open.filter((other) => other !== stream)
      await this.#append(text, { offset: this.#place.offset, open })
    }
  }

  async close(): Promise<void> {
    await Promise.all([this.#file.close(), this.#placeFile.close()])
  }

  async #append(text: Buffer, place: Omit<Place, 'size'>): Promise<void> {
    let { size } = await this.#file.stat()
    if (size + text.length > limits.logBytesPerMachineMax) {
      await this.#file.truncate(0)
      size = 0
    }
    const before = { ...this.#place, size }
    const after = { ...place, size: size + text.length }
    const step = JSON.stringify({ before, after, ns: String(this.#ns) })
    await this.#placeFile.write(step.padEnd(stepBytes), 0)
    try {
      await this.#file.appendFile(text)
    } catch (error) {
      // As of a disk that is full: no half of a line stays for the next one to be glued to.
      await this.#file.truncate(size)
      throw error
    }
    this.#place = after
    this.#allowance -= text.length
  }

  /** A log is written in a process that many machines share. */
  async #slowDown(): Promise<void> {
    const now = performance.now()
    const gained = ((now - this.#allowedAt) / 1000) * limits.logBytesPerSecondMax
    this.#allowance = Math.min(limits.logBurstBytesMax, this.#allowance + gained)
    this.#allowedAt = now
    if (this.#allowance >= 0) return
    await systemClock.sleep((-this.#allowance / limits.logBytesPerSecondMax) * 1000)
  }

  /** The lines of a piece; each has a moment of its own, by which readers know where they were. */
  #format({ stream, data, at }: Pick<RunOutput, 'stream' | 'data' | 'at'>): Buffer {
    // One byte a character: what is no UTF-8 stays as it is.
    const text = data.toString('latin1')
    const earliest = BigInt(at) * 1_000_000n
    let ns = this.#ns < earliest ? earliest : this.#ns + 1n
    let out = ''
    let second = secondOf(ns)
    let nanos = Number(ns % 1_000_000_000n)
    for (let from = 0; from < text.length; nanos++, ns++) {
      if (nanos === 1_000_000_000) {
        nanos = 0
        second = secondOf(ns)
      }
      const found = text.indexOf('\n', from)
      const to = found === -1 ? text.length : found
      const tag = found === -1 ? 'P' : 'F'
      const fraction = String(nanos).padStart(9, '0')
      out += `${second}.${fraction}Z ${stream} ${tag} ${text.slice(from, to)}\n`
      from = to + 1
    }
    this.#ns = ns - 1n
    return Buffer.from(out, 'latin1')
  }
}

const secondOf = (ns: bigint): string =>
  new Date(Number(ns / 1_000_000n)).toISOString().slice(0, 19)

function readStep(path: string): z.infer<typeof stepSchema> | undefined {
  try {
    return stepSchema.parse(JSON.parse(readFileSync(path, 'utf8')))
  } catch {
    rmSync(path, { force: true }) // None, or of a first write that was cut short.
    return undefined
  }
}
