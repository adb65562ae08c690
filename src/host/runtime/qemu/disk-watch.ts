import { systemClock } from '#core/clock.ts'
import { messageOf } from '#core/fault.ts'
import type { Logger } from '#sys/log.ts'
import type { Qmp } from './qmp.ts'
import type { VmSession } from './vm-session.ts'
import type { VmSessions } from './vm-sessions.ts'

/** Something that the owner of a machine should read in its log. */
export interface MachineNews {
  level: 'error' | 'info'
  message: string
}

export interface DiskWatchOptions {
  sessions: VmSessions
  log: Logger
  /** Talks with the monitor of a machine that runs, between its verbs; does nothing for one that does not run. */
  ask(id: string, work: (qmp: Qmp) => Promise<void>): Promise<void>
  onNews(id: string, news: MachineNews): void
}

const lookEveryMs = 3_000
/** Two pings of ours. */
const silentMs = 5_000
/** A request that fails again does so at once. */
const settleMs = 500
/** A monitor that gives no answer is not asked with each look. */
const deafMs = 30_000
/** A disk that is full again and again is told once in so long. */
const tellEveryMs = 10 * 60_000

/**
 * QEMU stops a VM whose disk cannot grow because that of the host is full (`werror=enospc`, its default; any other error is
 * told to the guest) until somebody says `cont`. A guest that is silent is looked at; one that stands still so is said to,
 * and let go on as soon as it can. What is under way with it meanwhile waits.
 */
export class DiskWatch {
  readonly #options: DiskWatchOptions
  /** Machines that stand still, and whether their owners know. */
  readonly #standing = new Map<string, { isTold: boolean }>()
  readonly #toldAt = new Map<string, number>()
  readonly #notBefore = new Map<string, number>()
  readonly #looking = new Set<string>()
  readonly #timer: NodeJS.Timeout

  constructor(options: DiskWatchOptions) {
    this.#options = options
    this.#timer = setInterval(() => void this.#lookAtAll(), lookEveryMs).unref()
  }

  close(): void {
    clearInterval(this.#timer)
  }

  async #lookAtAll(): Promise<void> {
    const now = performance.now()
    forget(this.#toldAt, (at) => now - at > tellEveryMs)
    forget(this.#notBefore, (at) => now > at)
    const open = await this.#options.sessions.all()
    for (const id of this.#standing.keys()) if (!open.has(id)) this.#standing.delete(id)
    for (const [id, session] of open) {
      const mayStand = this.#standing.has(id) || session.guest.silentMs > silentMs
      if (mayStand && !this.#looking.has(id) && !this.#notBefore.has(id)) this.#look(id, session)
    }
  }

  #look(id: string, session: VmSession): void {
    this.#looking.add(id)
    this.#options
      .ask(id, (qmp) => this.#letGoOn(id, session, qmp))
      .catch((error: unknown) => {
        this.#notBefore.set(id, performance.now() + deafMs)
        this.#options.log.debug({ id, error: messageOf(error) }, 'a silent VM cannot be asked')
      })
      .finally(() => this.#looking.delete(id))
  }

  async #letGoOn(id: string, session: VmSession, qmp: Qmp): Promise<void> {
    if ((await qmp.status()) === 'io-error') {
      session.setAsleep(true)
      if (!this.#standing.has(id)) this.#standing.set(id, { isTold: this.#tellFull(id) })
      await qmp.execute('cont')
      await systemClock.sleep(settleMs)
      if ((await qmp.status()) === 'io-error') return
    }
    const stood = this.#standing.get(id)
    if (!stood) return
    this.#standing.delete(id)
    session.setAsleep(false)
    if (stood.isTold) this.#tell(id, { level: 'info', message: 'There is room: it goes on' })
  }

  #tellFull(id: string): boolean {
    if (this.#toldAt.has(id)) return false
    this.#toldAt.set(id, performance.now())
    const message = "The host's disk is full: the machine stands still until there is room"
    this.#tell(id, { level: 'error', message })
    return true
  }

  #tell(id: string, news: MachineNews): void {
    this.#options.log[news.level]({ id }, news.message)
    this.#options.onNews(id, news)
  }
}

function forget(times: Map<string, number>, isOver: (at: number) => boolean): void {
  for (const [id, at] of times) if (isOver(at)) times.delete(id)
}
