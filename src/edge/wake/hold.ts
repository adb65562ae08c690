import { systemClock } from '#core/clock.ts'
import { messageOf } from '#core/fault.ts'
import type { MachineRow } from '#spec/roster.ts'
import type { Logger } from '#sys/log.ts'
import type { Router } from '../proxy/router.ts'
import type { Member, Pool } from '../proxy/routes.ts'
import type { RouteTable } from '../proxy/route-table.ts'
import { choose } from './choose.ts'
import type { Starter } from './starter.ts'

/** Waiting for a machine on behalf of one request (PRX-36, PRX-44). */
export interface HoldOptions {
  table: RouteTable
  router: Router
  starter: Starter
  /** A host that said nothing for some seconds, while others did. */
  silent: (host: string) => boolean
  holdMs: number
  log: Logger
}

export type Outcome =
  /** HAProxy has a server for the pool. */
  | { kind: 'ready' }
  /** The client did not want to wait any longer. */
  | { kind: 'gone' }
  | { kind: 'failed'; code: string; message: string }

const lookEveryMs = 50
const afterWakeMs = 100
const silenceLookMs = 500

/** Returns the function that ends when HAProxy has a server for the pool, or when there is no hope of one. */
export function openHold(
  options: HoldOptions,
): (poolKey: string, gone: () => boolean) => Promise<Outcome> {
  const { table, router, starter, silent, log } = options
  const looking = new Map<string, Promise<void>>()

  /** Many requests fall on the waker at once when a server is marked down: HAProxy is asked once for all of them. */
  function lookOnce(poolKey: string): Promise<void> {
    const shared = looking.get(poolKey)
    if (shared) return shared
    const mine = router
      .look(poolKey)
      .then(() => systemClock.sleep(router.hasServer(poolKey) ? lookEveryMs : 0))
      .finally(() => looking.delete(poolKey))
    looking.set(poolKey, mine)
    return mine
  }

  /** Rejects when the host of the machine stops to say anything while it is asked: another may be woken meanwhile. */
  async function fallsSilent({ host }: MachineRow, wake: Promise<unknown>): Promise<void> {
    const over = new AbortController()
    const end = () => over.abort()
    wake.then(end, end)
    while (!over.signal.aborted) {
      await systemClock.sleep(silenceLookMs, over.signal).catch(() => {})
      if (silent(host)) throw new Error(`host ${host} does not answer`)
    }
  }

  return async (poolKey, gone) => {
    const deadline = systemClock.now() + options.holdMs
    const failed = new Set<string>()
    let failure: string | undefined
    if (router.hasServer(poolKey)) await lookOnce(poolKey)
    while (systemClock.now() < deadline) {
      if (gone()) return { kind: 'gone' }
      const pool = table.pool(poolKey)
      if (!pool) return { kind: 'failed', code: 'PR02', message: 'the app was removed' }
      if (router.hasServer(poolKey)) return { kind: 'ready' }
      const now = systemClock.now()
      const refusingMs = (member: Member) => router.refusingMs(member)
      const choice = choose(pool, { now, failed, refusingMs, silent })
      if (choice.do === 'refuse') {
        if (failure !== undefined) return { kind: 'failed', code: 'PM07', message: failure }
        return { kind: 'failed', code: choice.code, message: choice.message }
      }
      let waitMs = Math.min(1_000, deadline - now)
      if (choice.do === 'start') {
        waitMs = afterWakeMs
        try {
          const wake = starter.wake(choice.machine)
          await (silent(choice.machine.host)
            ? wake
            : Promise.race([wake, fallsSilent(choice.machine, wake)]))
        } catch (error) {
          failed.add(choice.machine.id)
          failure = `machine ${choice.machine.id} of ${pool.app} could not be started: ${messageOf(error)}`
          log.warn(failure)
          continue
        }
      }
      if (!router.hasServer(poolKey)) await router.changed(waitMs)
    }
    return { kind: 'failed', ...expired(table.pool(poolKey), options) }
  }
}

function expired(
  pool: Pool | undefined,
  { router, holdMs }: HoldOptions,
): { code: string; message: string } {
  for (const member of pool?.members.values() ?? []) {
    if (router.refusingMs(member) === undefined) continue
    const port = member.internalPort
    return {
      code: 'PC01',
      message: `machine ${member.row.id} of ${pool?.app} is started but refuses connections on port ${port}; the app must listen on 0.0.0.0:${port} (internal_port in fly.toml)`,
    }
  }
  const states = [...(pool?.members.values() ?? [])]
    .map(({ row }) => `${row.id} is ${row.state}${row.ready ? '' : ', not ready'}`)
    .join('; ')
  return {
    code: 'PR03',
    message: `no machine of ${pool?.app} was ready within ${holdMs} ms: ${states}; see: hangar status -a ${pool?.app} and hangar logs -a ${pool?.app}`,
  }
}
