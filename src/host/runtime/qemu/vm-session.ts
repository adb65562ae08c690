import { randomBytes } from 'node:crypto'
import { dialUnix, type Guest } from '#host/guest/index.ts'
import type { Logger } from '#sys/log.ts'
import type { OnApi } from '../driver.ts'
import { MachineChannel } from '../machine-channel.ts'
import { ConsoleTail } from './console.ts'
import { writeGuestExit, type VmFolder, type VmRecord } from './vm-folder.ts'
import { socketPath } from './vm-launch.ts'

const entropyBytes = 64

export interface VmSessionOptions {
  at: VmFolder
  record: VmRecord
  pid: number
  log: Pick<Logger, 'info' | 'warn'>
  onApi?: OnApi | undefined
  /** The guest's end is on the disk, and the guest knows. */
  onOver(): void
}

/** Our talk with one running VM: its guest, its console, and what it writes into its log. */
export class VmSession {
  readonly #channel: MachineChannel
  readonly #console: ConsoleTail
  readonly #sleep: { asleep: boolean }

  static async open(options: VmSessionOptions): Promise<VmSession> {
    const { at, record, pid, log, onApi } = options
    const sleep = { asleep: false }
    const channel = await MachineChannel.open({
      id: record.id,
      dial: () => dialUnix(socketPath(pid, 'guest')),
      padded: true,
      asleep: () => sleep.asleep,
      logFile: record.logFile,
      placeFile: at.outputFile,
      log,
      onApi,
      onExit: (end) => writeGuestExit(at, end),
      onOver: () => options.onOver(),
    })
    return new VmSession(channel, new ConsoleTail(socketPath(pid, 'console')), sleep)
  }

  private constructor(channel: MachineChannel, tail: ConsoleTail, sleep: { asleep: boolean }) {
    this.#channel = channel
    this.#console = tail
    this.#sleep = sleep
  }

  get guest(): Guest {
    return this.#channel.guest
  }

  /** A guest that stands still says nothing, and nothing is to be sent to it. */
  setAsleep(asleep: boolean): void {
    this.#sleep.asleep = asleep
  }

  /** After it stood still, its clock with it. Behind what is said later, so nobody has to wait for the answer. */
  tellTime(timeoutMs: number): Promise<void> {
    return this.guest.resumed(randomBytes(entropyBytes), timeoutMs)
  }

  get consoleWords(): string {
    return this.#console.words
  }

  /** Resolves when nothing is written any more. */
  async close(): Promise<void> {
    this.#console.close()
    await this.#channel.close()
  }
}
