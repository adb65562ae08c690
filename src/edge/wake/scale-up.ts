import { systemClock } from '#core/clock.ts'
import { messageOf } from '#core/fault.ts'
import type { MachineRow } from '#spec/roster.ts'
import type { Logger } from '#sys/log.ts'
import type { Router } from '../proxy/router.ts'
import type { Member } from '../proxy/routes.ts'
import type { RouteTable } from '../proxy/route-table.ts'
import { chooseExtra } from './choose.ts'
import { loadOf, usableMembers } from './load.ts'
import type { Starter } from './starter.ts'
import type { Streams } from './stream.ts'

/**
 * PRX-44: when all machines of a pool that run are at their soft limit, the next resting one is started. Queues form
 * inside HAProxy and never reach the waker, so the requests in flight are read from there.
 */
export interface ScaleUpOptions {
  table: RouteTable
  router: Router
  streams: Streams
  starter: Starter
  log: Logger
}

const pollMs = 250
/** A machine that could not be started is left alone this long. */
const failedMs = 10_000

export function startScaleUp(options: ScaleUpOptions): { close(): void } {
  const { table, router, starter, log } = options
  const stop = new AbortController()
  const failedUntil = new Map<string, number>()

  /** Requests queue only for machines at their hard limit. */
  const isFull = (member: Member) =>
    loadOf(member, options) >= Math.min(member.softLimit, member.hardLimit ?? Infinity)

  async function pass(): Promise<void> {
    const growable = new Map<string, MachineRow>()
    for (const pool of table.pools()) {
      if (!router.hasServer(pool.key)) continue
      const extra = chooseExtra(pool)
      if (!extra || starter.waking(extra.id)) continue
      if ((failedUntil.get(extra.id) ?? 0) > systemClock.now()) continue
      growable.set(pool.key, extra)
    }
    if (growable.size === 0) return
    await router.readSessions(growable.keys())
    for (const [key, extra] of growable) {
      const running = usableMembers(table.pool(key))
      if (running.length === 0 || !running.every(isFull)) continue
      log.info({ app: extra.app, machine: extra.id }, 'starting one more machine')
      starter.wake(extra).catch((error: unknown) => {
        failedUntil.set(extra.id, systemClock.now() + failedMs)
        log.warn({ machine: extra.id, error: messageOf(error) }, 'it could not be started')
      })
    }
  }

  void (async () => {
    while (!stop.signal.aborted) {
      await systemClock.sleep(pollMs, stop.signal).catch(() => {})
      if (stop.signal.aborted) return
      await pass().catch((error: unknown) =>
        log.debug({ error: messageOf(error) }, 'HAProxy counters were not read'),
      )
    }
  })()
  return { close: () => stop.abort() }
}
