import { randomBytes } from 'node:crypto'
import type { Duplex } from 'node:stream'
import { Fault, messageOf } from '#core/fault.ts'
import { systemClock } from '#core/clock.ts'
import {
  encodeFrame,
  frameBytesMax,
  FrameReader,
  frameTypes,
  protocolVersion,
  type Frame,
} from './frames.ts'
import { decodeWelcome, uint64, type Welcome } from './messages.ts'

export interface LinkOptions {
  /** The machine, for messages. */
  name: string
  /** Opens the channel; called again after each break. */
  dial(): Promise<Duplex>
  /** The channel knows no connections (virtio-serial): what was cut short may have to be filled up. */
  padded: boolean
  pingEveryMs: number
  /** After this long without a word the channel counts as broken. */
  pingDeadlineMs: number
  /** The output that is safe here; 0 when unknown. Asked at each new connection. */
  outputOffset(): bigint
  /** The machine is frozen and cannot answer: its silence does not count. */
  asleep(): boolean
  /** Said right behind each greeting. */
  early(): Buffer[]
  onWelcome(welcome: Welcome): void
  onFrame(frame: Frame): void
  onLost(why: string): void
}

const retryMs = { first: 20, most: 1_000 }
/** How long a port may leave the first greeting without an answer; twice as long each time. */
const greetMsFirst = 1_000
/** A greeting that fell into a frame which was cut short is found once that is filled up. */
const fillUpMs = 250
/** Frames that wait for a guest to take them; a RUN has at most 512. */
const waitingFramesMax = 2_048

/**
 * The channel to one guest, dialled again for as long as it is wanted. Only what follows the guest's WELCOME to our own
 * HELLO counts: whatever was under way for somebody before us is skipped.
 */
export class GuestLink {
  readonly #options: LinkOptions
  #channel: Duplex | undefined
  #ready = false
  #wanted = true
  #generation = 0n
  #heardAt = 0
  #waiting = 0
  #wake = new AbortController()
  #greetMs = greetMsFirst

  constructor(options: LinkOptions) {
    this.#options = options
    void this.#keep()
  }

  get ready(): boolean {
    return this.#ready
  }

  /** Since its last word, or since it was last dialled. */
  get silentMs(): number {
    return performance.now() - this.#heardAt
  }

  /** Nothing is sent while there is no guest: false. */
  send(frame: Parameters<typeof encodeFrame>[0]): boolean {
    return this.sendBytes([encodeFrame(frame)])
  }

  /** Like `early`, but on a channel that is greeted already, whether it has answered or not. */
  sendEarly(frame: Buffer): void {
    this.#channel?.write(frame)
  }

  sendBytes(parts: readonly Buffer[]): boolean {
    const channel = this.#channel
    if (!this.#ready || !channel) return false
    // A guest that asks for answers and never takes them must not fill our memory.
    if (this.#waiting > waitingFramesMax) {
      this.break('the guest takes nothing')
      return false
    }
    for (const part of parts) {
      this.#waiting++
      channel.write(part, () => {
        if (channel === this.#channel) this.#waiting--
      })
    }
    return true
  }

  /** Breaks the connection; it is dialled again at once, unless `close` or `pause` came first. */
  break(why: string): void {
    this.#channel?.destroy(new Error(why))
  }

  pause(): void {
    this.#wanted = false
    this.break('it was let go')
  }

  /** Dials again after `pause`. */
  unpause(): void {
    if (this.#wanted) return
    this.#wanted = true
    void this.#keep()
  }

  close(): void {
    this.pause()
    this.#wake.abort()
  }

  async #keep(): Promise<void> {
    let waitMs = retryMs.first
    while (this.#wanted) {
      const why = await this.#connectOnce().catch((error: unknown) => messageOf(error))
      if (this.#ready) {
        waitMs = retryMs.first
        this.#ready = false
        this.#options.onLost(why)
      }
      if (!this.#wanted) return
      await systemClock.sleep(waitMs, this.#wake.signal).catch(() => {})
      waitMs = Math.min(retryMs.most, waitMs * 2)
    }
  }

  /** Resolves with the reason when the connection is over. */
  async #connectOnce(): Promise<string> {
    const channel = await this.#options.dial()
    if (!this.#wanted) {
      channel.destroy()
      return 'it was let go'
    }
    const reader = new FrameReader()
    this.#channel = channel
    this.#waiting = 0
    this.#heardAt = performance.now()
    this.#generation = randomBytes(8).readBigUInt64LE()
    return new Promise((resolve) => {
      const ticker = setInterval(() => this.#tick(), this.#options.pingEveryMs)
      let why = 'the connection was closed'
      const impatience = this.#options.padded ? this.#beImpatient(channel) : []
      channel.on('error', (error) => {
        why = error.message
      })
      channel.on('close', () => {
        clearInterval(ticker)
        impatience.forEach(clearTimeout)
        resolve(why)
      })
      channel.on('end', () => channel.destroy())
      channel.on('data', (chunk: Buffer) => {
        for (const frame of reader.push(chunk)) {
          if (!channel.destroyed) this.#take(frame)
        }
      })
      this.#greet(channel)
    })
  }

  /**
   * A port that was opened while its VM was resumed may stay deaf or dumb for this connection; the next one is heard. A
   * guest that only takes its time is given more each time.
   */
  #beImpatient(channel: Duplex): NodeJS.Timeout[] {
    const waitMs = this.#greetMs
    this.#greetMs = Math.min(this.#options.pingDeadlineMs, waitMs * 2)
    const fillUp = () => {
      if (!this.#ready) channel.write(Buffer.alloc(frameBytesMax))
    }
    const giveUp = () => {
      if (!this.#ready) channel.destroy(new Error(`no answer to a greeting in ${waitMs} ms`))
    }
    return [setTimeout(fillUp, fillUpMs), setTimeout(giveUp, waitMs)]
  }

  #greet(channel: Duplex): void {
    const data = Buffer.alloc(18)
    data.writeUInt16LE(protocolVersion, 0)
    data.writeBigUInt64LE(this.#generation, 2)
    data.writeBigUInt64LE(this.#options.outputOffset(), 10)
    channel.write(encodeFrame({ type: frameTypes.hello, data }))
    for (const frame of this.#options.early()) channel.write(frame)
  }

  #take(frame: Frame): void {
    if (this.#ready) {
      this.#heardAt = performance.now()
      this.#options.onFrame(frame)
      return
    }
    if (frame.type !== frameTypes.welcome) return
    const welcome = decodeWelcome(frame.data)
    if (welcome?.generation !== this.#generation) return
    if (welcome.version !== protocolVersion) {
      const spoken = `it speaks version ${welcome.version} and we ${protocolVersion}`
      this.break(`the guest of machine ${this.#options.name} is not ours: ${spoken}`)
      return
    }
    this.#heardAt = performance.now()
    this.#ready = true
    this.#greetMs = greetMsFirst
    this.#options.onWelcome(welcome)
  }

  #tick(): void {
    if (this.#options.asleep()) {
      this.#heardAt = performance.now()
      return
    }
    if (performance.now() - this.#heardAt > this.#options.pingDeadlineMs) {
      this.break(`the guest said nothing for ${this.#options.pingDeadlineMs} ms`)
      return
    }
    this.send({ type: frameTypes.ping, data: uint64(BigInt(Math.floor(performance.now()))) })
  }
}

export function lostFault(name: string, why: string): Fault {
  return new Fault('native_failed', `the connection into machine ${name} broke: ${why}; try again`)
}
