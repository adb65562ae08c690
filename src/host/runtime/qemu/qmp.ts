import type { Socket } from 'node:net'
import { z } from 'zod'
import { systemClock } from '#core/clock.ts'
import { Fault } from '#core/fault.ts'
import { dialUnix } from '#host/guest/index.ts'

const messageSchema = z.object({
  QMP: z.unknown().optional(),
  id: z.int().optional(),
  return: z.unknown().optional(),
  error: z.object({ desc: z.string() }).optional(),
})

const lineBytesMax = 4 * 1024 * 1024
const answerTimeoutMs = 10_000

const gone = () => new Fault('native_failed', 'the VMM closed its control socket')

/** QEMU's control socket: one command at a time, each with an answer or a Fault in QEMU's words. */
export class Qmp {
  readonly #socket: Socket
  readonly #waiting = new Map<number, PromiseWithResolvers<unknown>>()
  #text = ''
  #next = 0

  private constructor(socket: Socket) {
    this.#socket = socket
    socket.on('data', (chunk) => this.#take(chunk.toString('utf8')))
    socket.on('error', () => {}) // Told by `close`.
    socket.on('close', () => {
      for (const waiting of this.#waiting.values()) waiting.reject(gone())
      this.#waiting.clear()
    })
  }

  /** Connects, waiting until QEMU has made its socket. */
  static async open(path: string, timeoutMs: number): Promise<Qmp> {
    const until = performance.now() + timeoutMs
    for (;;) {
      const socket = await dialUnix(path).catch((error: unknown) => {
        if (performance.now() > until) throw error
      })
      if (socket) {
        const qmp = new Qmp(socket)
        try {
          await qmp.execute('qmp_capabilities')
          return qmp
        } catch (error) {
          qmp.close() // Of a VMM that does not answer; QEMU speaks with one at a time.
          throw error
        }
      }
      await systemClock.sleep(1)
    }
  }

  async execute(command: string, args: object = {}): Promise<unknown> {
    if (this.#socket.destroyed) throw gone()
    const id = this.#next++
    const answer = Promise.withResolvers<unknown>()
    this.#waiting.set(id, answer)
    const timer = setTimeout(() => {
      answer.reject(new Fault('timeout', `the VMM did not answer ${command} in time`))
    }, answerTimeoutMs)
    this.#socket.write(`${JSON.stringify({ execute: command, arguments: args, id })}\n`)
    try {
      return await answer.promise
    } finally {
      clearTimeout(timer)
      this.#waiting.delete(id)
    }
  }

  /** e.g. `running`, `paused`, `inmigrate`. */
  async status(): Promise<string> {
    return z.object({ status: z.string() }).parse(await this.execute('query-status')).status
  }

  close(): void {
    this.#socket.destroy()
  }

  #take(text: string): void {
    this.#text += text
    for (let end = this.#text.indexOf('\n'); end !== -1; end = this.#text.indexOf('\n')) {
      this.#takeLine(this.#text.slice(0, end))
      this.#text = this.#text.slice(end + 1)
    }
    if (this.#text.length > lineBytesMax) this.#socket.destroy()
  }

  #takeLine(line: string): void {
    let message: z.infer<typeof messageSchema>
    try {
      message = messageSchema.parse(JSON.parse(line))
    } catch {
      return
    }
    const waiting = message.id === undefined ? undefined : this.#waiting.get(message.id)
    if (!waiting) return // A greeting, an event, or an answer that came too late.
    if (message.error) {
      waiting.reject(new Fault('native_failed', `the VMM refused: ${message.error.desc}`))
    } else waiting.resolve(message.return)
  }
}
