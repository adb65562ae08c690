import { randomBytes } from 'node:crypto'
import { dialUnix, Guest, type GuestExit } from '#host/guest/index.ts'
import { RunLog } from '#host/logs/index.ts'
import type { ExitRecord, OnApi } from '../driver.ts'
import { moment } from '../guest-moment.ts'
import { ConsoleTail } from './console.ts'
import { writeGuestExit, type VmFolder, type VmRecord } from './vm-folder.ts'
import { socketPath } from './vm-launch.ts'

const entropyBytes = 64

export interface VmSessionOptions {
  at: VmFolder
  record: VmRecord
  pid: number
  onNote(words: string): void
  onApi?: OnApi | undefined
  /** The guest's end is on the disk, and the guest knows. */
  onOver(): void
}

/**
 * Our talk with one running VM: its guest, its console, and what it writes into its log. The guest's end is on the disk
 * before the guest may go.
 */
export class VmSession {
  readonly guest: Guest
  readonly pid: number
  readonly #console: ConsoleTail
  readonly #log: RunLog
  #writing: Promise<void> = Promise.resolve()
  #asleep = false
  #closed = false

  static async open(options: VmSessionOptions): Promise<VmSession> {
    const log = await RunLog.open(options.record.logFile, options.at.outputFile)
    return new VmSession(options, log)
  }

  private constructor(options: VmSessionOptions, log: RunLog) {
    const { at, record, pid, onApi } = options
    this.pid = pid
    this.#console = new ConsoleTail(socketPath(pid, 'console'))
    this.#log = log
    this.guest = new Guest({
      name: record.id,
      dial: () => dialUnix(socketPath(pid, 'guest')),
      padded: true,
      asleep: () => this.#asleep,
      outputFrom: log.offset,
      onOutput: (output) => this.#write(() => log.write({ ...output, at: moment(output.at) })),
      onExit: async (exit) => {
        const end = exitRecord(exit)
        await this.#write(() => log.finish(end.at))
        writeGuestExit(at, end)
      },
      ...(onApi ? { onApi: (connection) => onApi(record.id, connection) } : {}),
      onNote: (words) => options.onNote(words),
    })
    this.guest.exited.then(
      () => options.onOver(),
      () => {},
    )
  }

  /** A guest that stands still says nothing, and nothing is to be sent to it. */
  setAsleep(asleep: boolean): void {
    this.#asleep = asleep
  }

  /** After it stood still, its clock with it. Behind what is said later, so nobody has to wait for the answer. */
  tellTime(timeoutMs: number): Promise<void> {
    return this.guest.resumed(randomBytes(entropyBytes), timeoutMs)
  }

  get consoleWords(): string {
    return this.#console.words
  }

  /** What has come is written; what comes later is for the next talk. */
  #write(work: () => Promise<void>): Promise<void> {
    if (this.#closed) return Promise.reject(new Error('this talk is over'))
    this.#writing = work()
    return this.#writing
  }

  /** Resolves when nothing is written any more. */
  async close(): Promise<void> {
    if (this.#closed) return
    this.#closed = true
    this.guest.close()
    this.#console.close()
    await this.#writing.catch(() => {}) // Told to the guest's end of the channel.
    await this.#log.close()
  }
}

function exitRecord(exit: GuestExit): ExitRecord {
  const { outputLost: _, ...rest } = exit
  return { ...rest, at: moment(exit.at) }
}
