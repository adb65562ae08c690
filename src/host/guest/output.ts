import { decodeOutput, type GuestOutput, type Welcome } from './messages.ts'

export interface OutputIntakeOptions {
  /** Safe already. */
  from: bigint
  onOutput(output: GuestOutput): Promise<void>
  /** Bytes that the guest had to drop. */
  onLost(bytes: bigint): void
  /** More on its way than the protocol allows. */
  onFlood(): void
  onError(error: unknown): void
  acknowledge(offset: bigint): void
}

/** The guest keeps at most 256 KiB on its way, and one piece that begins before that. */
const pendingBytesMax = 512 * 1024

/**
 * Takes a machine's output piece by piece in order, each acknowledged when it is safe. What a break makes come twice is
 * taken once.
 */
export class OutputIntake {
  readonly #options: OutputIntakeOptions
  #safe: bigint
  /** The next byte that is new. */
  #next: bigint
  #pending = 0
  /** A piece could not be kept: what follows it waits for the next connection, which brings all of it again. */
  #broken = false
  #work: Promise<void> = Promise.resolve()

  constructor(options: OutputIntakeOptions) {
    this.#options = options
    this.#safe = options.from
    this.#next = options.from
  }

  /** Everything before this has been kept. */
  get safe(): bigint {
    return this.#safe
  }

  /** A new connection: the guest sends again from what it has acknowledged. */
  begin(place: Welcome['output']): void {
    this.#work = this.#work.then(() => {
      this.#broken = false
    })
    // An end before ours is another boot of the machine: its output counts from the start again.
    if (place.end < this.#safe) this.#safe = place.acked
    this.#next = this.#safe
  }

  take(data: Buffer): void {
    const output = decodeOutput(data)
    if (!output) return
    const end = output.offset + BigInt(output.data.length)
    this.#pending += data.length
    if (this.#pending > pendingBytesMax) this.#options.onFlood()
    const known = this.#next > output.offset ? Number(this.#next - output.offset) : 0
    if (output.offset > this.#next) this.#options.onLost(output.offset - this.#next)
    if (end > this.#next) this.#next = end
    this.#work = this.#work.then(async () => {
      if (this.#broken) return
      try {
        const fresh = output.data.subarray(Math.min(known, output.data.length))
        if (fresh.length > 0) {
          await this.#options.onOutput({
            ...output,
            data: fresh,
            offset: end - BigInt(fresh.length),
          })
        }
        if (end > this.#safe) this.#safe = end
        this.#options.acknowledge(end)
      } catch (error) {
        this.#broken = true
        this.#options.onError(error)
      } finally {
        this.#pending -= data.length
      }
    })
  }

  /** Everything that has arrived has been kept. */
  settled(): Promise<void> {
    return this.#work
  }
}
