import { sql } from 'kysely'
import { isFault, messageOf } from '#core/fault.ts'
import type { Machine } from '#spec/machine.ts'
import { getAppById } from '../apps/index.ts'
import type { ControlContext } from '../context.ts'
import { machineAction } from './act.ts'
import { getMachine } from './read.ts'

/** A host that is being restarted, or a machine that reboots, is back within it. */
export const hostLostMsMin = 30_000
const everyMs = 5_000

const upStates: readonly Machine['state'][] = ['starting', 'started', 'restarting', 'updating']

/**
 * MCH-79: standbys start when the host of a machine that they stand by for fails, and rest again when that machine is seen
 * running. Control decides: the one host that could say more is the one that does not answer, and no other knows the machine.
 * A host has failed when it was silent on the bus and to direct calls for half a minute. Only a failed host counts: a machine
 * that was stopped, destroyed or failed by itself moves nothing (MCH-81). What is done is read from the standby's own
 * events, so that control may die anywhere; a standby that a user started or stopped since is left alone.
 */
export function standbyKeeper(ctx: ControlContext): () => Promise<void> {
  /** Since when each host is lost, as this process saw it: a new one waits its half minute again. */
  const lostSince = new Map<string, number>()
  let nextAt = 0
  return async () => {
    const now = ctx.clock.now()
    if (now < nextAt) return
    nextAt = now + everyMs
    for (const { row } of ctx.hosts.list()) {
      if (!ctx.hosts.pulse.lost(row.host)) lostSince.delete(row.host)
      else if (!lostSince.has(row.host)) lostSince.set(row.host, now)
    }
    const failed = (host: string) =>
      now - (lostSince.get(host) ?? Number.POSITIVE_INFINITY) >= hostLostMsMin
    for (const standby of await standbyPlacements(ctx)) {
      try {
        await keep(ctx, standby, failed)
      } catch (error) {
        if (!isFault(error)) throw error
        ctx.log.info(
          { machine: standby.id, error: messageOf(error) },
          'a standby is looked at later',
        )
      }
    }
  }
}

interface Standby {
  id: string
  appId: string
  standsFor: string[]
}

async function standbyPlacements(ctx: ControlContext): Promise<Standby[]> {
  const rows = await ctx.db
    .selectFrom('machine_placements')
    .select(['machine_id', 'app_id', 'last_known'])
    .where('status', '=', 'placed')
    .where(sql<boolean>`last_known -> 'config' ? 'standbys'`)
    .orderBy('machine_id')
    .limit(1_000)
    .execute()
  return rows.map(({ machine_id, app_id, last_known }) => ({
    id: machine_id,
    appId: app_id,
    standsFor: last_known?.config.standbys ?? [],
  }))
}

async function keep(
  ctx: ControlContext,
  { id, appId, standsFor }: Standby,
  failed: (host: string) => boolean,
): Promise<void> {
  const watched = await ctx.db
    .selectFrom('machine_placements')
    .select(['machine_id', 'host_id'])
    .where('app_id', '=', appId)
    .where('machine_id', 'in', ['', ...standsFor])
    .where('status', '=', 'placed')
    .execute()
  const down = watched.filter(({ host_id }) => failed(host_id))
  const app = await getAppById(ctx, appId)
  const standby = await getMachine(ctx, app, id)
  if (standby.host_status !== 'ok') return
  const turn = lastTurn(standby)
  if (down.length === 0) {
    const standsIn = turn?.type === 'start' && turn.source === 'flyd'
    if (!standsIn || !upStates.includes(standby.state)) return
    for (const { machine_id } of watched) {
      const { state, host_status } = await getMachine(ctx, app, machine_id)
      if (host_status !== 'ok' || state !== 'started') return
    }
    if (watched.length === 0) return
    ctx.log.info({ app: app.name, machine: id }, 'the machine that it stood in for is back')
    await machineAction(ctx, app, id, 'stop', { source: 'flyd' })
    return
  }
  if (standby.state !== 'stopped') return
  for (const { machine_id, host_id } of down) {
    const lost = await getMachine(ctx, app, machine_id)
    if (!upStates.includes(lost.state)) continue
    // It took its turn already and ended by itself, or a user said otherwise since.
    const restedByUs = turn?.type === 'stop' && turn.source === 'flyd'
    if (turn && !restedByUs && turn.timestamp > Date.parse(lost.updated_at)) continue
    ctx.log.warn({ app: app.name, machine: id, host: host_id }, 'a standby takes over')
    await machineAction(ctx, app, id, 'start', { source: 'flyd' })
    return
  }
}

/** The newest word to start or stop the machine, whoever said it. */
const lastTurn = (machine: Machine) =>
  machine.events.find(({ status }) => status === 'starting' || status === 'stopping')
