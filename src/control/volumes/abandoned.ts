import { sql } from 'kysely'
import { isFault, messageOf } from '#core/fault.ts'
import type { Snapshot } from '#spec/volume.ts'
import type { ControlContext } from '../context.ts'
import { callHost, type HostRef } from '../hosts/index.ts'
import { runnerLives } from '../runner.ts'
import { markVolumeGone } from './placements.ts'

/** Longer than any create takes. */
const placingMsMax = 5 * 60_000
/** VOL-11: how long a host keeps a destroyed volume. */
const destroyedKeptMs = 24 * 3_600_000
const rowsMax = 1_000
/** Those of a dead host, which no round clears, must not fill every round. */
const inNoOrder = sql`random()`

type Row = HostRef & { volume_id: string }

/**
 * Destroys volumes that nobody wants, with their snapshots: of deleted apps, and those a host may have made without
 * telling us. Safe to repeat; a silent host is passed over until it answers. Returns how many are left.
 */
export async function destroyAbandonedVolumes(
  ctx: ControlContext,
  options: { appId?: string } = {},
): Promise<number> {
  let query = ctx.db
    .selectFrom('volume_placements')
    .select(['volume_id', 'host_id', 'host_api', 'status', 'placed_by', 'created_at'])
    .where('status', 'in', ['placing', 'doomed'])
    .orderBy(inNoOrder)
    .limit(rowsMax)
  if (options.appId !== undefined) query = query.where('app_id', '=', options.appId)
  const age = (row: { created_at: Date }) => ctx.clock.now() - row.created_at.getTime()
  const rows = (await query.execute()).filter(
    (row) => row.status === 'doomed' || !runnerLives(row.placed_by) || age(row) > placingMsMax,
  )
  const cleared = await eachByHost(ctx, rows, async (row) => {
    // A host that has not heard of it refuses to make it later: the request may still be on its way.
    await found(() =>
      callHost(ctx, row, {
        method: 'DELETE',
        path: `/v1/volumes/${row.volume_id}`,
        query: { now: 'true' },
        timeoutMs: 30_000,
        source: 'flyd',
      }),
    )
    await markVolumeGone(ctx, row.volume_id)
    return true
  })
  return rows.length - cleared
}

/** Forgets destroyed volumes of which the host has nothing more: the volume goes after a day, the last snapshot later. */
export async function forgetRemovedVolumes(ctx: ControlContext): Promise<number> {
  const rows = await ctx.db
    .selectFrom('volume_placements')
    .select(['volume_id', 'host_id', 'host_api'])
    .where('status', '=', 'leaving')
    .where('destroyed_at', '<', new Date(ctx.clock.now() - destroyedKeptMs))
    .orderBy(inNoOrder)
    .limit(rowsMax)
    .execute()
  return eachByHost(ctx, rows, async (row) => {
    const path = `/v1/volumes/${row.volume_id}`
    const get = <T>(at: string) =>
      found(() => callHost<T>(ctx, row, { method: 'GET', path: at, source: 'flyd' }))
    if (await get(path)) return false
    const snapshots = await get<Snapshot[]>(`${path}/snapshots`)
    if (snapshots && snapshots.length > 0) return false
    await markVolumeGone(ctx, row.volume_id)
    return true
  })
}

/** Undefined when the host does not know it. */
async function found<T>(call: () => Promise<T>): Promise<T | undefined> {
  try {
    return await call()
  } catch (error) {
    if (isFault(error, 'not_found')) return undefined
    throw error
  }
}

/** Hosts at once, the volumes of one in turn until it is silent. Returns for how many `act` said true. */
async function eachByHost<R extends Row>(
  ctx: ControlContext,
  rows: readonly R[],
  act: (row: R) => Promise<boolean>,
): Promise<number> {
  const counts = await Promise.all(
    [...Map.groupBy(rows, (row) => row.host_id).values()].map(async (group) => {
      let count = 0
      for (const row of group) {
        try {
          if (await act(row)) count++
        } catch (error) {
          if (isFault(error, 'host_unreachable')) break
          const volume = row.volume_id
          ctx.log.warn({ volume, error: messageOf(error) }, 'an unwanted volume; tried again later')
        }
      }
      return count
    }),
  )
  return counts.reduce((sum, count) => sum + count, 0)
}
