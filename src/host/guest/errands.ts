import type { Readable } from 'node:stream'
import { PassThrough } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { z } from 'zod'
import { Fault } from '#core/fault.ts'
import { processSchema, type MachineProcess } from '#spec/machine.ts'
import { collect } from './collect.ts'
import type { GuestOpen } from './messages.ts'
import type { GuestProcess } from './streams.ts'

export interface GuestExecRequest {
  argv: string[]
  env?: Record<string, string>
  user?: string
  workdir?: string
  stdin?: string | Buffer
  timeoutMs: number
  /** Of stdout and of stderr, each; the rest is read and dropped. */
  outputBytesMax: number
}

export interface GuestExecResult {
  /** 127 when the program was not found, 124 when it ran past its time. */
  exitCode: number
  signal: number
  stdout: string
  stderr: string
  timedOut: boolean
}

const metricsSchema = z.object({
  /** Microseconds of processor time since the boot, of all processors. */
  cpuUsec: z.number(),
  uptimeMs: z.number(),
  load: z.array(z.number()).length(3),
  processes: z.number(),
  oomKills: z.number(),
  memoryTotalBytes: z.number(),
  memoryAvailableBytes: z.number(),
  swapTotalBytes: z.number(),
  swapFreeBytes: z.number(),
  rootTotalBytes: z.number(),
  rootFreeBytes: z.number(),
  /** Of the path that was asked for; absent where no volume is mounted. */
  volume: z
    .object({
      blockBytes: z.int().positive(),
      blocks: z.int().nonnegative(),
      blocksFree: z.int().nonnegative(),
      blocksAvailable: z.int().nonnegative(),
    })
    .optional(),
})
export type GuestMetrics = z.infer<typeof metricsSchema>

const askTimeoutMs = 10_000
const answerBytesMax = 8 * 1024 * 1024

/** What is asked of a guest that has one answer, each by a program of its own that runs to its end. */
export abstract class GuestErrands {
  /** The machine, for messages. */
  protected abstract readonly machine: string

  abstract open(request: Omit<GuestOpen, 'credit'>): GuestProcess

  async exec(request: GuestExecRequest): Promise<GuestExecResult> {
    const { stdin, outputBytesMax, ...rest } = request
    const process = this.open({ kind: 'program', ...rest })
    const stdout = collect(process.stdout, outputBytesMax)
    const stderr = collect(process.stderr, outputBytesMax)
    process.stdin.end(stdin)
    const { exitCode, signal, timedOut } = await process.exited
    await Promise.all([stdout.ended, stderr.ended])
    return { exitCode, signal, timedOut, stdout: stdout.text(), stderr: stderr.text() }
  }

  /** PID 1 first. */
  async ps(): Promise<MachineProcess[]> {
    return this.#ask('ps', z.array(processSchema))
  }

  /** With the path of a volume also how full that is. */
  async stats(given: { path?: string; timeoutMs?: number } = {}): Promise<GuestMetrics> {
    return this.#ask('metrics', metricsSchema, given)
  }

  /** Grows the mounted volume at `path` to the size of its disk, once the guest sees that it has so many bytes. */
  async grow(path: string, diskBytes: number): Promise<void> {
    await this.#errand({ kind: 'grow', path, argv: [String(diskBytes)] })
  }

  /** All that was written to the mounted volume at `path`, or with `/` to any disk, is there when this resolves. */
  async sync(path: string, timeoutMs: number): Promise<void> {
    await this.#errand({ kind: 'sync', path, timeoutMs })
  }

  /** The file is there whole or not at all; missing folders are made. */
  async copyIn(
    path: string,
    content: Readable | Buffer,
    options: { mode?: number; user?: string; timeoutMs?: number } = {},
  ): Promise<void> {
    const { timeoutMs = askTimeoutMs, ...rest } = options
    await this.#errand({ kind: 'copyIn', path, ...rest, timeoutMs }, content)
  }

  /** The bytes of a regular file; the stream fails with a Fault when it cannot be read. */
  copyOut(path: string, options: { timeoutMs?: number } = {}): Readable {
    const { timeoutMs = askTimeoutMs } = options
    const process = this.open({ kind: 'copyOut', path, timeoutMs })
    const complaint = collect(process.stderr, 4096)
    process.stdin.end()
    const out = new PassThrough()
    process.stdout.pipe(out, { end: false })
    const finish = async () => {
      const exit = await process.exited
      if (exit.timedOut) throw this.#failed(path, 'it took too long')
      if (!process.stdout.readableEnded) {
        await new Promise((resolve) => process.stdout.once('end', resolve).once('close', resolve))
      }
      if (exit.exitCode === 0) return void out.end()
      throw this.#failed(path, complaint.text())
    }
    finish().catch((error: unknown) => out.destroy(error as Error))
    out.on('close', () => process.close())
    return out
  }

  async #errand(request: Omit<GuestOpen, 'credit'>, input?: Readable | Buffer): Promise<string> {
    const process = this.open({ ...request, timeoutMs: request.timeoutMs ?? askTimeoutMs })
    const stdout = collect(process.stdout, answerBytesMax)
    const stderr = collect(process.stderr, 4096)
    if (input instanceof Buffer || input === undefined) process.stdin.end(input)
    // A source that breaks must not leave half a file: the errand is given up with it.
    else pipeline(input, process.stdin).catch(() => process.close())
    const exit = await process.exited
    await Promise.all([stdout.ended, stderr.ended])
    if (exit.timedOut) throw this.#failed(request.path ?? request.kind, 'it took too long')
    if (exit.exitCode !== 0) throw this.#failed(request.path ?? request.kind, stderr.text())
    return stdout.text()
  }

  async #ask<T>(
    kind: 'ps' | 'metrics',
    schema: z.ZodType<T>,
    given: { path?: string; timeoutMs?: number } = {},
  ): Promise<T> {
    const text = await this.#errand({ kind, ...given })
    let parsed: unknown
    try {
      parsed = JSON.parse(text)
    } catch (cause) {
      throw new Fault('native_failed', `machine ${this.machine} gave no whole answer to ${kind}`, {
        cause,
      })
    }
    const read = schema.safeParse(parsed)
    if (read.success) return read.data
    throw new Fault(
      'native_failed',
      `machine ${this.machine} gave an answer to ${kind} of a wrong shape`,
    )
  }

  #failed(what: string, words: string): Fault {
    return new Fault('invalid', `machine ${this.machine}: ${words.trim() || `${what} failed`}`)
  }
}
