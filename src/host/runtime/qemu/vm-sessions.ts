import { Fault } from '#core/fault.ts'
import type { Logger } from '#sys/log.ts'
import type { OnApi } from '../driver.ts'
import type { VmPlace } from './vm-place.ts'
import { VmSession } from './vm-session.ts'

/** Our talks with the VMs of this host, one each. */
export class VmSessions {
  readonly #place: VmPlace
  readonly #log: Logger
  readonly #onOver: (id: string) => void
  readonly #onApi: OnApi | undefined
  readonly #open = new Map<string, { pid: number; session: Promise<VmSession> }>()

  constructor(
    place: VmPlace,
    options: { log: Logger; onOver: (id: string) => void; onApi?: OnApi | undefined },
  ) {
    this.#place = place
    this.#log = options.log
    this.#onOver = options.onOver
    this.#onApi = options.onApi
  }

  has(id: string): boolean {
    return this.#open.has(id)
  }

  /** The talk with a machine whose VMM lives; begun when there is none. */
  async open(id: string): Promise<VmSession | undefined> {
    const record = this.#place.record(id)
    const pid = record?.vmm?.pid
    if (!record || pid === undefined) return undefined
    const known = this.#open.get(id)
    if (known?.pid === pid) return known.session
    const before = this.close(id)
    const opening = before.then(() =>
      VmSession.open({
        at: this.#place.folder(id),
        record,
        pid,
        log: this.#log,
        onApi: this.#onApi,
        onOver: () => this.#onOver(id),
      }),
    )
    this.#open.set(id, { pid, session: opening })
    opening.catch(() => this.#open.delete(id))
    return opening
  }

  /**
   * The talk with a machine that runs, once its guest has answered.
   * @throws Fault `precondition_failed` for one that does not run, `timeout` for a guest that says nothing
   */
  async connected(id: string, timeoutMs: number): Promise<VmSession> {
    const state = this.#place.state(id)
    if (state === 'suspended') {
      throw new Fault('precondition_failed', `machine ${id} is suspended; resume it first`)
    }
    const session = state === 'running' ? await this.open(id) : undefined
    if (!session) throw new Fault('precondition_failed', `machine ${id} is not running`)
    await session.guest.connected(timeoutMs)
    return session
  }

  /** Those that are open, by machine. */
  async all(): Promise<Map<string, VmSession>> {
    const open = new Map<string, VmSession>()
    for (const [id, { session }] of this.#open) {
      const found = await session.catch(() => undefined)
      if (found) open.set(id, found)
    }
    return open
  }

  /** The last words on the console of a machine that we speak with. */
  async consoleWords(id: string): Promise<string | undefined> {
    const session = await this.#open.get(id)?.session.catch(() => undefined)
    return session?.consoleWords
  }

  async close(id: string): Promise<void> {
    const open = this.#open.get(id)
    this.#open.delete(id)
    const session = await open?.session.catch(() => undefined)
    await session?.close()
  }

  closeAll(): void {
    for (const id of this.#open.keys()) void this.close(id)
  }
}
