import { systemClock } from '#core/clock.ts'
import type { Admin } from './admin.ts'
import type { Actual, Server } from './reconcile.ts'
import type { PoolStat } from './stats.ts'

/**
 * Deletes drained servers once they are idle. HAProxy refuses while it keeps an idle connection to them, for about
 * 5 s, so it is asked again.
 */
export interface LeavingOptions {
  admin: Admin
  actual: () => Actual
  read: (slots: readonly string[]) => Promise<PoolStat>
  /** False while HAProxy is gone. */
  live: () => boolean
  /** The slot's last server is gone. */
  onEmpty: (slot: string) => void
}

const pollMs = 50
const deleteRetryMs = 500

export class LeavingServers {
  readonly #options: LeavingOptions
  readonly #nextTry = new Map<string, number>()
  #running = false
  #lastName = 0

  constructor(options: LeavingOptions) {
    this.#options = options
  }

  /** A server's name. Names only grow, over restarts too: HAProxy must never see one twice. */
  newName(machine: string): string {
    this.#lastName = Math.max(this.#lastName + 1, systemClock.now())
    return `${machine}.${this.#lastName.toString(36)}`
  }

  /** Counts what is in flight to the leaving servers. */
  async read(): Promise<PoolStat> {
    return await this.#options.read([...new Set(this.#list().map(([slot]) => slot))])
  }

  /** Works until no server is leaving; safe to call at any time. */
  watch(): void {
    if (this.#running || this.#list().length === 0) return
    this.#running = true
    void this.#work().finally(() => {
      this.#running = false
      this.#nextTry.clear()
    })
  }

  #list(): [string, Server][] {
    const leaving: [string, Server][] = []
    for (const [slot, servers] of this.#options.actual().servers) {
      for (const server of servers) if (server.state === 'leaving') leaving.push([slot, server])
    }
    return leaving
  }

  async #work(): Promise<void> {
    while (this.#options.live() && this.#list().length > 0) {
      try {
        const stat = await this.read()
        for (const [slot, server] of this.#list()) await this.#tryDelete(slot, server, stat)
      } catch {
        return // HAProxy is gone: the servers with it.
      }
      await systemClock.sleep(pollMs)
    }
  }

  async #tryDelete(slot: string, server: Server, stat: PoolStat): Promise<void> {
    const line = stat.servers.find((s) => s.slot === slot && s.server === server.name)
    if (line && line.sessions > 0) return
    const now = systemClock.now()
    if ((this.#nextTry.get(server.name) ?? 0) > now) return
    this.#nextTry.set(server.name, now + deleteRetryMs)
    const at = `${slot}/${server.name}`
    const [, answer = ''] = await this.#options.admin.run([
      `set server ${at} state maint`,
      `del server ${at}`,
    ])
    if (line && !answer.includes('Server deleted')) return
    const { servers } = this.#options.actual()
    const left = (servers.get(slot) ?? []).filter((s) => s !== server)
    if (left.length > 0) {
      servers.set(slot, left)
    } else {
      servers.delete(slot)
      this.#options.onEmpty(slot)
    }
  }
}
