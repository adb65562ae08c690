import { systemClock } from '#core/clock.ts'
import { isFault, messageOf } from '#core/fault.ts'
import type { Logger } from '#sys/log.ts'
import type { Router } from '../proxy/router.ts'
import { autostopOfMachine, type Member } from '../proxy/routes.ts'
import type { RouteTable } from '../proxy/route-table.ts'
import { machineToRest, type Running } from './idle.ts'
import { loadOf } from './load.ts'
import type { Starter } from './starter.ts'
import type { Streams } from './stream.ts'

/** PRX-41: every few minutes, at most one machine an app. */
export interface SleepOptions {
  region: string
  intervalMs: number
  table: RouteTable
  router: Router
  streams: Streams
  starter: Starter
  /** Requests that wait for the pool in the waker. */
  held: (poolKey: string) => number
  log: Logger
}

export function startSleep(options: SleepOptions): { close(): void } {
  const { table, router, streams, starter, log } = options
  const stop = new AbortController()
  /** Requests served by each machine up to the previous pass, by server name: a new name is a new count. */
  let before = new Map<string, string>()
  /** Machines that were up at the previous pass, with the moment since when they are. */
  let upBefore = new Map<string, number>()

  async function pass(): Promise<void> {
    const slots = new Map<string, string>()
    for (const pool of table.pools()) {
      const slot = router.slotOf(pool.key)
      if (slot !== undefined) slots.set(slot, pool.key)
    }
    const stat = await router.read([...slots.keys()])
    const now = new Map<string, string>()
    for (const line of stat.servers) {
      const machine = line.server.slice(0, line.server.lastIndexOf('.'))
      if (machine === '') continue
      const seen = `${now.get(machine) ?? ''}${line.server}=${line.requests};`
      now.set(machine, seen)
    }
    const up = new Map<string, number>()
    for (const app of table.apps()) {
      const running = runningOf(app, now)
      for (const { row } of running) up.set(row.id, row.changed_at)
      void restOne(running)
    }
    upBefore = up
    for (const [machine, seen] of now) now.set(machine, `${seen}${streams.total(machine)}`)
    before = now
  }

  function runningOf(app: string, counts: Map<string, string>): Running[] {
    const members = new Map<string, Member>()
    for (const pool of table.routesOf(app)?.pools.values() ?? []) {
      if (options.held(pool.key) > 0) return []
      for (const [id, member] of pool.members) {
        // A machine on its way means that somebody is at work on the app: a deploy, or a wake.
        if (member.row.returning || member.row.state === 'starting') return []
        if (member.usable) members.set(id, member)
      }
    }
    return [...members].map(([id, member]) => ({
      row: member.row,
      load: loadOf(member, options),
      softLimit: member.softLimit,
      settled: upBefore.get(id) === member.row.changed_at,
      quiet: before.get(id) === `${counts.get(id) ?? ''}${streams.total(id)}`,
    }))
  }

  /** One of an app's machines, or the next best where that one is in use otherwise. */
  async function restOne(running: Running[]): Promise<void> {
    const machine = machineToRest(running, options.region)
    if (!machine) return
    const { row } = machine
    const how = autostopOfMachine(row)
    if (how === 'off' || stop.signal.aborted) return
    log.info(
      { app: row.app, machine: row.id },
      `${how === 'stop' ? 'stopping' : 'suspending'} it: idle`,
    )
    try {
      await starter.rest(row, how)
    } catch (error) {
      if (isFault(error, 'conflict')) {
        log.info({ machine: row.id, why: error.message }, 'it is left running')
        machine.inUse = true
        return restOne(running)
      }
      log.warn({ machine: row.id, error: messageOf(error) }, 'an idle machine could not be stopped')
    }
  }

  void (async () => {
    while (!stop.signal.aborted) {
      await systemClock.sleep(options.intervalMs, stop.signal).catch(() => {})
      if (stop.signal.aborted) return
      await pass().catch((error: unknown) =>
        log.warn({ error: messageOf(error) }, 'a pass over idle machines failed'),
      )
    }
  })()
  return { close: () => stop.abort() }
}
