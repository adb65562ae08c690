import { sql } from 'kysely'
import { limits } from '#core/limits.ts'
import { machineOf, markOf, type MachineLine } from '#spec/machine-line.ts'
import type { Machine } from '#spec/machine.ts'
import { holdApp, type AppRecord } from '../apps/index.ts'
import type { ControlContext } from '../context.ts'
import type { HostRef } from '../hosts/index.ts'
import { runnerLives, thisRunner } from '../runner.ts'
import type { PlacementStatus } from '../store/index.ts'

export interface MachinePlacement extends HostRef {
  machine_id: string
  name: string
  region: string
  status: PlacementStatus
  last_known: Machine | null
}

export type MachinePlace = Pick<MachinePlacement, 'machine_id' | 'status'> & HostRef

type Store = Pick<ControlContext, 'db'>

const columns = [
  'machine_id',
  'name',
  'region',
  'status',
  'host_id',
  'host_api',
  'last_known',
] as const

/** Longer than any create takes: after it, whoever was placing has given up or died. */
const placingMsMax = 15 * 60_000

/** The app's machines that exist, oldest first. */
export async function placementsOf(
  ctx: Store,
  app: Pick<AppRecord, 'id'>,
): Promise<MachinePlacement[]> {
  return ctx.db
    .selectFrom('machine_placements')
    .select(columns)
    .where('app_id', '=', app.id)
    .where('status', '=', 'placed')
    .orderBy('created_at')
    .limit(20_000)
    .execute()
}

/**
 * The same without what is kept of each: for thousands that would be most of the work. Of those that are gone the newest
 * `limits.goneMachinesPerListMax`; none that exists is ever left out for them.
 */
export async function placesOf(
  ctx: Store,
  app: Pick<AppRecord, 'id'>,
  options: { includeGone: boolean },
): Promise<MachinePlace[]> {
  const newestOf = (status: 'placed' | 'gone', count: number) =>
    ctx.db
      .selectFrom('machine_placements')
      .select(['machine_id', 'host_id', 'host_api', 'status', 'created_at'])
      .where('app_id', '=', app.id)
      .where('status', '=', status)
      .orderBy('created_at', 'desc')
      .limit(count)
      .execute()
  const placed = await newestOf('placed', 20_000)
  const gone = options.includeGone ? await newestOf('gone', limits.goneMachinesPerListMax) : []
  return [...placed, ...gone].toSorted((a, b) => a.created_at.getTime() - b.created_at.getTime())
}

/** Those of the machines that a host has ever answered about, in no order. */
export async function lastKnownOf(ctx: Store, ids: readonly string[]): Promise<Machine[]> {
  const rows = await ctx.db
    .selectFrom('machine_placements')
    .select('last_known')
    .where('machine_id', '=', sql<string>`any(${ids})`)
    .execute()
  return rows.map((row) => row.last_known).filter((machine) => machine !== null)
}

export async function findPlacement(
  ctx: Store,
  app: Pick<AppRecord, 'id'>,
  id: string,
): Promise<MachinePlacement | undefined> {
  return ctx.db
    .selectFrom('machine_placements')
    .select(columns)
    .where('machine_id', '=', id)
    .where('app_id', '=', app.id)
    .where('status', 'in', ['placed', 'gone'])
    .executeTakeFirst()
}

/** MCH-90: the hosts of the app's machines, one entry for each, with those being placed right now. */
export async function hostsOfApp(ctx: Store, app: Pick<AppRecord, 'id'>): Promise<HostRef[]> {
  return ctx.db
    .selectFrom('machine_placements')
    .select(['host_id', 'host_api'])
    .where('app_id', '=', app.id)
    .where('status', 'in', ['placing', 'placed'])
    .execute()
}

/** One entry for each host that has, had or may yet have a machine of the app. */
export async function everyHostOfApp(ctx: Store, app: Pick<AppRecord, 'id'>): Promise<HostRef[]> {
  return ctx.db
    .selectFrom('machine_placements')
    .select(['host_id', 'host_api'])
    .distinctOn('host_id')
    .where('app_id', '=', app.id)
    .orderBy('host_id')
    .orderBy('created_at', 'desc')
    .execute()
}

/**
 * Step one of a create. Throws the unique violation of `machine_live_name` when the name is in use. Fault `not_found` when the
 * app was deleted meanwhile: whatever is recorded before that, its deletion finds.
 */
export async function recordPlacement(
  ctx: Store,
  app: Pick<AppRecord, 'id'>,
  placement: { id: string; name: string; region: string } & HostRef,
): Promise<void> {
  await ctx.db.transaction().execute(async (trx) => {
    await holdApp(trx, app)
    await trx
      .insertInto('machine_placements')
      .values({
        machine_id: placement.id,
        app_id: app.id,
        name: placement.name,
        region: placement.region,
        host_id: placement.host_id,
        host_api: placement.host_api,
        status: 'placing',
        placed_by: thisRunner,
      })
      .execute()
  })
}

export async function setPlacementStatus(
  ctx: Store,
  id: string,
  status: PlacementStatus,
): Promise<void> {
  await ctx.db
    .updateTable('machine_placements')
    .set({ status })
    .where('machine_id', '=', id)
    .execute()
}

/**
 * Last step of a create, in one write: the host has the machine, and this is what it said. False when somebody gave the
 * machine up meanwhile, as the deletion of its app does.
 */
export async function confirmPlacement(ctx: Store, machine: Machine): Promise<boolean> {
  const { numUpdatedRows } = await ctx.db
    .updateTable('machine_placements')
    .set({ status: 'placed', last_known: JSON.stringify(memoryOf(machine)) })
    .where('machine_id', '=', machine.id)
    .where('status', '=', 'placing')
    .executeTakeFirst()
  return numUpdatedRows > 0n
}

/** What is kept of a machine: never the nonce, and only the newest events. */
function memoryOf(machine: Machine): Omit<Machine, 'nonce'> {
  const { nonce: _, ...rest } = machine
  return { ...rest, events: machine.events.slice(0, 20) }
}

/** Forgets a placement whose machine was never made. */
export async function erasePlacement(ctx: Store, id: string): Promise<void> {
  await ctx.db.deleteFrom('machine_placements').where('machine_id', '=', id).execute()
}

/** All of the app's machines are to go, reachable or not. */
export async function doomMachines(ctx: Store, app: Pick<AppRecord, 'id'>): Promise<void> {
  await ctx.db
    .updateTable('machine_placements')
    .set({ status: 'doomed' })
    .where('app_id', '=', app.id)
    .where('status', 'in', ['placing', 'placed'])
    .execute()
}

/** Machines that nobody wants, and those whose maker died before it was done. */
export async function abandonedPlacements(
  ctx: Store,
  options: { now: number; appId?: string },
): Promise<MachinePlacement[]> {
  let query = ctx.db
    .selectFrom('machine_placements')
    .select([...columns, 'placed_by', 'created_at'])
    .where('status', 'in', ['placing', 'doomed'])
    // Those of a dead host, which no round clears, must not fill every round.
    .orderBy(sql`random()`)
    .limit(1_000)
  if (options.appId !== undefined) query = query.where('app_id', '=', options.appId)
  const rows = await query.execute()
  return rows.filter(
    (row) =>
      row.status === 'doomed' ||
      !runnerLives(row.placed_by) ||
      options.now - row.created_at.getTime() > placingMsMax,
  )
}

const goneNow = { status: 'gone' as const, gone_at: sql<Date>`coalesce(gone_at, now())` }

const remembered = new WeakMap<object, Map<string, string>>()

/** Keeps the host's last answer about a machine, written only when something changed. */
export async function remember(ctx: Store, machine: Machine): Promise<void> {
  let marks = remembered.get(ctx.db)
  if (!marks) remembered.set(ctx.db, (marks = new Map()))
  const mark = markOf(machine)
  if (marks.get(machine.id) === mark) return
  const copy = memoryOf(machine)
  const gone = machine.state === 'destroyed'
  await ctx.db
    .updateTable('machine_placements')
    .set({ last_known: JSON.stringify(copy), ...(gone ? goneNow : {}) })
    .where('machine_id', '=', machine.id)
    .where('status', '<>', 'doomed')
    .execute()
  if (gone) marks.delete(machine.id)
  else marks.set(machine.id, mark)
}

const togetherMax = 500

/** Keeps what is new in what hosts answered about many machines, in few writes: after a start of control that is all of it. */
export async function rememberAll(ctx: Store, lines: readonly MachineLine[]): Promise<void> {
  let marks = remembered.get(ctx.db)
  if (!marks) remembered.set(ctx.db, (marks = new Map()))
  const news = lines.filter(({ id, mark }) => marks.get(id) !== mark)
  const living = news.filter(({ state }) => state !== 'destroyed')
  for (let at = 0; at < living.length; at += togetherMax) {
    const some = living.slice(at, at + togetherMax)
    const machines = some.map((line) => memoryOf(machineOf(line)))
    // Lists of the same machines at once take the rows in one order: otherwise they wait for each other.
    await sql`
      with news as (select machine from jsonb_array_elements(${JSON.stringify(machines)}::jsonb) as all_of_it(machine)),
      held as (
        select machine_id from machine_placements
        where machine_id in (select machine ->> 'id' from news) and status <> 'doomed'
        order by machine_id for no key update
      )
      update machine_placements set last_known = news.machine from news, held
      where held.machine_id = news.machine ->> 'id'
      and machine_placements.machine_id = held.machine_id`.execute(ctx.db)
    for (const { id, mark } of some) marks.set(id, mark)
  }
  for (const line of news) {
    if (line.state === 'destroyed') await remember(ctx, machineOf(line))
  }
}

/** MCH-37: the machine is gone; its last known form stays readable, as destroyed, until it is old. */
export async function markGone(ctx: Store, id: string): Promise<void> {
  remembered.get(ctx.db)?.delete(id)
  await ctx.db
    .updateTable('machine_placements')
    .set({
      ...goneNow,
      last_known: sql`jsonb_set(last_known, '{state}', '"destroyed"')`,
    })
    .where('machine_id', '=', id)
    .execute()
}
