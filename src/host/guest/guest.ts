import { randomBytes } from 'node:crypto'
import type { Duplex } from 'node:stream'
import { systemClock } from '#core/clock.ts'
import { Fault, messageOf } from '#core/fault.ts'
import { GuestErrands } from './errands.ts'
import { encodeFrame, encodeMessage, frameTypes, type Frame } from './frames.ts'
import { GuestLink, lostFault } from './link.ts'
import {
  decodeExit,
  encodeRun,
  uint32,
  uint64,
  type GuestExit,
  type GuestOpen,
  type GuestOutput,
  type GuestRun,
  type Welcome,
} from './messages.ts'
import { OutputIntake } from './output.ts'
import { GuestStreams, type GuestProcess } from './streams.ts'

export interface GuestOptions {
  /** The machine, for messages. */
  name: string
  /** Opens the channel; called again after each break. */
  dial(): Promise<Duplex>
  /** True for virtio-serial, which knows no connections. */
  padded: boolean
  /** Output up to here is safe already, as a host before us wrote down. */
  outputFrom?: bigint
  /** What resolves is acknowledged: the guest keeps everything else for us, or for the next host. */
  onOutput?(output: GuestOutput): void | Promise<void>
  /** The end of the main process; acknowledged when it resolves. May be told again after a break. */
  onExit?(exit: GuestExit): void | Promise<void>
  /** Words of PID 1 for whoever looks after the machine. */
  onNote?(words: string): void
  /** A connection of a program inside to /.fly/api; without this it is answered that there is none. */
  onApi?(connection: Duplex): void
  /** The channel broke; it is being dialled again. */
  onLost?(why: string): void
  /** The machine is frozen and cannot answer: its silence does not count, and nothing that was under way is given up. */
  asleep?(): boolean
  pingEveryMs?: number
  pingDeadlineMs?: number
}

/** For the guest to say that a program's time is over, after it is; it need not be one that does. */
const graceMs = 2_000
const notesMax = 200
const notesPerMs = 3_600_000

/** PID 1 of one machine, as the host sees it: the calls of docs/guest-protocol.md, over a channel that may break. */
export class Guest extends GuestErrands {
  protected readonly machine: string
  readonly #options: GuestOptions
  readonly #link: GuestLink
  readonly #output: OutputIntake
  readonly #changed = new Set<() => void>()
  readonly #exit = Promise.withResolvers<GuestExit>()
  #streams: GuestStreams
  #welcome: Welcome | undefined
  #pid = 0
  #runFailed: Fault | undefined
  #closed = false
  #notes = 0
  #notesSince = 0
  /** What the guest is yet to hear of its resume, and the time that it was told last and answers with. */
  #resumed: { entropy: Buffer; now: bigint } | undefined
  /** What a ping of ours is yet to bring back. */
  #pinged: Buffer | undefined

  constructor(options: GuestOptions) {
    super()
    this.machine = options.name
    this.#options = options
    this.#output = new OutputIntake({
      from: options.outputFrom ?? 0n,
      onOutput: async (output) => options.onOutput?.(output),
      onLost: (bytes) => this.#note(`${bytes} bytes of output were lost: nobody took them in time`),
      onFlood: () => this.#link.break('the guest sent more output than it may'),
      onError: (error) => this.#link.break(`its output could not be kept: ${messageOf(error)}`),
      acknowledge: (offset) =>
        this.#link.send({ type: frameTypes.outputAck, data: uint64(offset) }),
    })
    this.#link = new GuestLink({
      name: options.name,
      dial: () => options.dial(),
      padded: options.padded,
      pingEveryMs: options.pingEveryMs ?? 2_000,
      pingDeadlineMs: options.pingDeadlineMs ?? 15_000,
      outputOffset: () => this.#output.safe,
      asleep: () => options.asleep?.() ?? false,
      early: () => (this.#resumed ? [this.#resumedFrame(this.#resumed)] : []),
      onWelcome: (welcome) => this.#take(welcome),
      onFrame: (frame) => this.#takeFrame(frame),
      onLost: (why) => {
        this.#streams.lost(lostFault(options.name, why))
        this.#tell()
        options.onLost?.(why)
      },
    })
    this.#streams = this.#newStreams()
  }

  /** The main process has ended and all its output is kept. */
  get exited(): Promise<GuestExit> {
    return this.#exit.promise
  }

  get ready(): boolean {
    return this.#link.ready
  }

  /** How long it has said nothing, though it is asked every few seconds. */
  get silentMs(): number {
    return this.#link.silentMs
  }

  /** Output up to here has been kept: to be given as `outputFrom` to the next host. */
  get outputSafe(): bigint {
    return this.#output.safe
  }

  /** Waits until the guest has answered. A Fault (`timeout`) after `timeoutMs`. */
  async connected(timeoutMs: number): Promise<Welcome> {
    await this.#until(() => this.#link.ready, timeoutMs, 'has not answered')
    return this.#welcome as Welcome
  }

  /**
   * Starts the machine's main process; again when a break leaves it open whether it was heard. A Fault (`invalid`) when
   * the image or the config is to blame, in the guest's words.
   */
  async run(run: GuestRun, timeoutMs: number): Promise<{ pid: number }> {
    const message = encodeRun(run)
    const until = performance.now() + timeoutMs
    for (;;) {
      const welcome = await this.connected(until - performance.now())
      if (welcome.state !== 'waiting') return { pid: welcome.pid }
      this.#pid = 0
      this.#runFailed = undefined
      this.#link.sendBytes(encodeMessage(frameTypes.run, 0, message))
      const settled = () =>
        this.#pid > 0 || this.#runFailed !== undefined || this.#welcome !== welcome || !this.ready
      await this.#until(settled, until - performance.now(), 'has not started its program')
      if (this.#runFailed) throw this.#runFailed
      if (this.#pid > 0) return { pid: this.#pid }
    }
  }

  /**
   * Opens a program inside, for a terminal or a pipe. With `timeoutMs` it is given up some time after: the guest is asked to
   * keep the time, and need not be one that does.
   */
  open(request: Omit<GuestOpen, 'credit'>): GuestProcess {
    const process = this.#streams.open(request)
    if (request.timeoutMs === undefined) return process
    const late = setTimeout(() => process.close(), request.timeoutMs + graceMs)
    const over = () => clearTimeout(late)
    process.exited.then(over, over)
    return process
  }

  /** Signals the main process. False when it cannot be told now. */
  signal(number: number): boolean {
    return this.#link.send({ type: frameTypes.signal, data: uint32(number) })
  }

  /** Signals the main process and kills it after `timeoutMs`. */
  stop(number: number, timeoutMs: number): boolean {
    return this.#link.send({ type: frameTypes.stop, data: uint32(number, timeoutMs) })
  }

  /**
   * After it stood still: the time of now, and randomness that no copy of this machine shares. Not after the guest's answer to
   * our greeting: the first thing that a machine does again is to take the time.
   */
  async resumed(entropy: Buffer, timeoutMs: number): Promise<void> {
    const resumed = { entropy, now: 0n }
    this.#resumed = resumed
    this.#link.sendEarly(this.#resumedFrame(resumed))
    try {
      await this.#until(
        () => this.#resumed !== resumed,
        timeoutMs,
        'has not taken the time after its resume',
      )
    } finally {
      if (this.#resumed === resumed) this.#resumed = undefined
    }
  }

  /** Of the moment at which it is sent: one that was lost with its connection is told anew, later. */
  #resumedFrame(resumed: { entropy: Buffer; now: bigint }): Buffer {
    resumed.now = BigInt(systemClock.now()) * 1_000_000n
    const data = Buffer.concat([uint64(resumed.now), resumed.entropy])
    return encodeFrame({ type: frameTypes.resumed, data })
  }

  /**
   * Ends the connections of programs inside to /.fly/api, as before a snapshot: what was answered is with them when this
   * resolves, and they see an end. A guest that does not say so within `timeoutMs` is not waited for.
   */
  async hangUpApi(timeoutMs: number): Promise<void> {
    this.#streams.endApi()
    await this.answers(timeoutMs)
  }

  /** Whether the guest has taken all that was sent to it until now. */
  async answers(timeoutMs: number): Promise<boolean> {
    const token = randomBytes(8)
    this.#pinged = token
    if (!this.#link.send({ type: frameTypes.ping, data: token })) return false
    const settled = () => this.#pinged !== token || !this.ready
    await this.#until(settled, timeoutMs, 'has not answered').catch(() => {})
    return this.#pinged === undefined
  }

  /** Lets go of the channel, as before a snapshot, until `reconnect`. */
  letGo(): void {
    this.#link.pause()
  }

  reconnect(): void {
    this.#link.unpause()
  }

  close(): void {
    this.#closed = true
    this.#link.close()
    this.#tell()
  }

  #newStreams(): GuestStreams {
    return new GuestStreams({
      name: this.machine,
      send: (parts) => this.#link.sendBytes(parts),
      onViolation: (why) => this.#link.break(`the guest broke the protocol: ${why}`),
      onApi: (connection) => this.#takeApi(connection),
    })
  }

  #take(welcome: Welcome): void {
    this.#welcome = welcome
    this.#streams = this.#newStreams()
    this.#output.begin(welcome.output)
    this.#tell()
  }

  #takeFrame(frame: Frame): void {
    switch (frame.type) {
      case frameTypes.output:
        return this.#output.take(frame.data)
      case frameTypes.exit:
        return this.#takeExit(frame.data)
      case frameTypes.started:
        this.#pid = frame.data.length === 4 ? frame.data.readUInt32LE(0) : 0
        if (this.#welcome) this.#welcome.state = 'running'
        return this.#tell()
      case frameTypes.failed: {
        const code = frame.data[0] ? 'invalid' : 'native_failed'
        const details = code === 'invalid' ? { details: { exit_code: 127 } } : {}
        this.#runFailed = new Fault(code, frame.data.toString('utf8', 1), details)
        return this.#tell()
      }
      case frameTypes.pong:
        if (frame.data.equals(uint64(this.#resumed?.now ?? 0n))) this.#resumed = undefined
        if (this.#pinged?.equals(frame.data)) this.#pinged = undefined
        return this.#tell()
      case frameTypes.note:
        return this.#note(frame.data.toString('utf8', 0, 1024))
      default:
        this.#streams.take(frame)
    }
  }

  /** A hostile guest may have a lot to say, and may break the connection as often as it likes. */
  #note(words: string): void {
    const now = performance.now()
    if (now - this.#notesSince > notesPerMs) {
      this.#notesSince = now
      this.#notes = 0
    }
    if (this.#notes++ < notesMax) this.#options.onNote?.(words)
  }

  #takeExit(data: Buffer): void {
    const exit = decodeExit(data)
    if (!exit) return
    const keep = async () => {
      await this.#output.settled()
      await this.#options.onExit?.(exit)
      this.#link.send({ type: frameTypes.exitAck })
      this.#exit.resolve(exit)
    }
    keep().catch((error: unknown) =>
      this.#link.break(`its end could not be kept: ${messageOf(error)}`),
    )
  }

  #takeApi(connection: Duplex): void {
    if (this.#options.onApi) return this.#options.onApi(connection)
    const body = JSON.stringify({ error: 'this machine has no API of its own yet' })
    const head = [
      'HTTP/1.1 501 Not Implemented',
      'content-type: application/json',
      'connection: close',
    ]
    connection.resume()
    connection.end(`${head.join('\r\n')}\r\ncontent-length: ${body.length}\r\n\r\n${body}`)
  }

  #tell(): void {
    for (const look of this.#changed) look()
  }

  #until(met: () => boolean, timeoutMs: number, words: string): Promise<void> {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(
        () => {
          this.#changed.delete(look)
          const message = `the guest of machine ${this.machine} ${words} within ${Math.round(timeoutMs)} ms`
          reject(new Fault('timeout', message))
        },
        Math.max(0, timeoutMs),
      )
      const look = () => {
        if (!this.#closed && !met()) return
        clearTimeout(timer)
        this.#changed.delete(look)
        if (met()) resolve()
        else
          reject(
            new Fault('native_failed', `the connection into machine ${this.machine} was closed`),
          )
      }
      this.#changed.add(look)
      look()
    })
  }
}
