import type { Duplex } from 'node:stream'
import { messageOf } from '#core/fault.ts'
import { Guest } from '#host/guest/index.ts'
import { RunLog } from '#host/logs/index.ts'
import type { Logger } from '#sys/log.ts'
import type { ExitRecord, OnApi } from './driver.ts'
import { moment } from './guest-moment.ts'

export interface MachineChannelOptions {
  id: string
  dial(): Promise<Duplex>
  /** True for virtio-serial, which knows no connections. */
  padded: boolean
  /** It stands still and cannot answer. */
  asleep(): boolean
  logFile: string
  /** Says how much of the machine's output is in the log. */
  placeFile: string
  log: Pick<Logger, 'info' | 'warn'>
  pingEveryMs?: number
  pingDeadlineMs?: number
  onApi?: OnApi | undefined
  /** The main process has ended and its output is in the log. Acknowledged when this returns. */
  onExit(exit: ExitRecord): void
  /** The end is acknowledged: nothing more comes. */
  onOver(): void
  /** PID 1 is gone, or hangs. */
  onLost?(): void
}

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
    const { id, padded, pingEveryMs, pingDeadlineMs, onApi } = options
    this.#log = log
    this.guest = new Guest({
      name: id,
      dial: () => options.dial(),
      padded,
      outputFrom: log.offset,
      ...(pingEveryMs === undefined ? {} : { pingEveryMs }),
      ...(pingDeadlineMs === undefined ? {} : { pingDeadlineMs }),
      asleep: () => options.asleep(),
      onOutput: (output) => {
        const at = moment(output.at)
        return this.#keep(() => log.write({ ...output, at }), output.data.length)
      },
      onExit: async (said) => {
        const { outputLost: _lost, ...end } = said
        const exit = { ...end, at: moment(said.at) }
        await this.#keep(() => log.finish(exit.at), 0)
        if (this.#closed) throw new Error('the machine was given up')
        options.onExit(exit)
      },
      ...(onApi ? { onApi: (connection) => onApi(id, connection) } : {}),
      onNote: (words) => options.log.info({ id, words }, 'PID 1 says'),
      onLost: () => {
        if (!this.#closed) options.onLost?.()
      },
    })
    this.guest.exited.then(
      () => options.onOver(),
      () => {},
    )
  }

  /** Lets go; what the machine still says waits there for the next channel. Resolves when nothing is written any more. */
  async close(): Promise<void> {
    if (this.#closed) return
    this.#closed = true
    this.guest.close()
    await this.#writing
    await this.#log
      .close()
      .catch((error: unknown) => this.#complain(error, 'cannot close the log of a machine'))
  }

  /**
   * A log that cannot be written, as on a full disk, must not end a machine or cut off who works in it: what does not fit
   * is lost, and said.
   */
  #keep(write: () => Promise<void>, bytes: number): Promise<void> {
    if (this.#closed) return Promise.reject(new Error('the machine was given up'))
    this.#writing = write().then(
      () => this.#tellLost(),
      (error: unknown) => {
        if (this.#lostBytes === 0) this.#complain(error, 'the log of a machine cannot be written')
        this.#lostBytes += bytes
      },
    )
    return this.#writing
  }

  #tellLost(): void {
    if (this.#lostBytes === 0) return
    const lost = { id: this.#options.id, bytes: this.#lostBytes }
    this.#options.log.warn(lost, 'output of a machine was lost: its log could not be written')
    this.#lostBytes = 0
  }

  #complain(error: unknown, message: string): void {
    this.#options.log.warn({ id: this.#options.id, error: messageOf(error) }, message)
  }
}
