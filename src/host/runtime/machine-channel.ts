import type { Duplex } from 'node:stream'
import { messageOf } from '#core/fault.ts'
import { Guest, type GuestExit } from '#host/guest/index.ts'
import { RunLog } from '#host/logs/index.ts'
import type { Logger } from '#sys/log.ts'
import type { OnApi } from './driver.ts'
import { moment } from './guest-moment.ts'

export interface MachineChannelOptions {
  id: string
  dial(): Promise<Duplex>
  /** Frozen: it cannot answer. */
  asleep(): boolean
  logFile: string
  /** Says how much of the machine's output is in the log. */
  placeFile: string
  log: Logger
  onApi?: OnApi | undefined
  /** The main process has ended and its output is in the log. Acknowledged when this returns. */
  onExit(exit: GuestExit): void
  /** The end is acknowledged: nothing more comes. */
  onOver(): void
  /** PID 1 is gone, or hangs. */
  onLost(): void
}

/** A unix socket does not lose its other end without a word: a ping finds a PID 1 that hangs, and that can take a while. */
const pingEveryMs = 10_000
const pingDeadlineMs = 30_000

/** The channel to PID 1 of one machine for as long as this process has to do with it: commands in, the log out. */
export class MachineChannel {
  readonly guest: Guest
  readonly #log: RunLog
  readonly #options: MachineChannelOptions
  #closed = false
  #writing: Promise<void> = Promise.resolve()
  #lostBytes = 0

  static async open(options: MachineChannelOptions): Promise<MachineChannel> {
    return new MachineChannel(options, await RunLog.open(options.logFile, options.placeFile))
  }

  private constructor(options: MachineChannelOptions, log: RunLog) {
    this.#options = options
    const { onApi } = options
    this.#log = log
    this.guest = new Guest({
      name: options.id,
      dial: () => options.dial(),
      padded: false,
      outputFrom: log.offset,
      pingEveryMs,
      pingDeadlineMs,
      asleep: () => options.asleep(),
      onOutput: (output) => {
        const at = moment(output.at)
        return this.#keep(() => log.write({ ...output, at }), output.data.length)
      },
      onExit: async (said) => {
        const exit = { ...said, at: moment(said.at) }
        await this.#keep(() => log.finish(exit.at), 0)
        if (this.#closed) throw new Error('the machine was given up')
        options.onExit(exit)
      },
      ...(onApi ? { onApi: (connection) => onApi(options.id, connection) } : {}),
      onNote: (words) => options.log.info({ id: options.id, words }, 'PID 1 says'),
      onLost: () => {
        if (!this.#closed) options.onLost()
      },
    })
    this.guest.exited.then(
      () => options.onOver(),
      () => {},
    )
  }

  get closed(): boolean {
    return this.#closed
  }

  /** Lets go; what the machine still says waits there for the next channel. */
  close(): void {
    if (this.#closed) return
    this.#closed = true
    this.guest.close()
    this.#writing
      .then(() => this.#log.close())
      .catch((error: unknown) => this.#complain(error, 'cannot close the log of a machine'))
  }

  /** A log that cannot be written, as on a full disk, must not end a machine: what does not fit is lost, and said. */
  #keep(write: () => Promise<void>, bytes: number): Promise<void> {
    if (this.#closed) return Promise.reject(new Error('the machine was given up'))
    const kept = write().catch((error: unknown) => {
      if (this.#lostBytes === 0) this.#complain(error, 'output of a machine is lost')
      this.#lostBytes += bytes
    })
    this.#writing = kept
    return kept
  }

  #complain(error: unknown, message: string): void {
    this.#options.log.warn({ id: this.#options.id, error: messageOf(error) }, message)
  }
}
