import { messageOf } from '#core/fault.ts'
import type { Machine } from '#spec/machine.ts'
import type { MachineRow } from '#spec/roster.ts'
import { findApp, holdApp } from '../apps/index.ts'
import type { ControlContext } from '../context.ts'
import { callHost } from '../hosts/index.ts'
import { isUniqueViolation } from '../store/database.ts'
import { thisRunner } from '../runner.ts'
import { getMachine } from './read.ts'

/** A machine that its host announces and that control has no record of. */
export interface Stray {
  id: string
  app: string
  host: string
  region: string
  state: Machine['state']
}

const adoptEveryMs = 60_000
const missingMax = 50

/** What the hosts announce and control does not know, such as after its database was restored from a backup. */
export async function strayMachines(ctx: ControlContext): Promise<Stray[]> {
  const known = new Set((await livePlacements(ctx)).map(({ machine_id }) => machine_id))
  return [...ctx.hosts.machineRows()]
    .filter((row) => !known.has(row.id) && row.state !== 'destroying' && row.state !== 'destroyed')
    .map(({ id, app, host, region, state }) => ({ id, app, host, region, state }))
    .sort((a, b) => (a.id < b.id ? -1 : 1))
}

const livePlacements = (ctx: ControlContext) =>
  ctx.db
    .selectFrom('machine_placements')
    .innerJoin('apps', 'apps.id', 'app_id')
    .select(['machine_id', 'machine_placements.status', 'host_id', 'app_id', 'apps.name'])
    .where('machine_placements.status', 'in', ['placing', 'placed', 'doomed'])
    .execute()

/**
 * Brings control's records and what the hosts have together, once a minute: a machine that control does not know is taken
 * into its app's records when it was seen so twice in a row; one that cannot be stays in `strayMachines`. Nothing is ever
 * destroyed here. A machine that control knows and its host does not have is marked as gone.
 */
export function strayKeeper(ctx: ControlContext): () => Promise<void> {
  let nextAt = ctx.clock.now() + adoptEveryMs
  let seen = new Set<string>()
  return async () => {
    if (ctx.clock.now() < nextAt) return
    nextAt = ctx.clock.now() + adoptEveryMs
    const strays = await strayMachines(ctx)
    const before = seen
    seen = new Set(strays.map(({ id }) => id))
    for (const stray of strays) {
      if (!before.has(stray.id) || !ctx.hosts.reachable(stray.host)) continue
      const adopted = await adopt(ctx, stray)
      const say = adopted ? 'adopted a machine that was not in the records' : 'a machine is unknown'
      ctx.log.warn({ machine: stray.id, app: stray.app, host: stray.host }, say)
    }
    await noteMissing(ctx)
  }
}

/** False when its app is not there, or its name or id is taken in the records. */
async function adopt(
  ctx: ControlContext,
  { id, app: name, host, region }: Stray,
): Promise<boolean> {
  const app = await findApp(ctx, name)
  if (!app) return false
  const host_api = ctx.hosts.apiOf(host, '')
  try {
    // Asked by the app's id: another app may have had the same name.
    const machines = await callHost<Machine[]>(
      ctx,
      { host_id: host, host_api },
      { method: 'GET', path: '/v1/machines', query: { app: app.id } },
    )
    const machine = machines.find((one) => one.id === id)
    if (!machine) return false
    const { nonce: _, ...known } = machine
    await ctx.db.transaction().execute(async (trx) => {
      // What is recorded before the app is deleted goes with it; nothing is recorded after that.
      await holdApp(trx, app)
      await trx
        .insertInto('machine_placements')
        .values({
          machine_id: id,
          app_id: app.id,
          name: machine.name,
          region,
          host_id: host,
          host_api,
          status: 'placed',
          placed_by: thisRunner,
          last_known: JSON.stringify(known),
        })
        .execute()
    })
    return true
  } catch (error) {
    if (!isUniqueViolation(error)) ctx.log.info({ error: messageOf(error) }, 'adopted later')
    return false
  }
}

/** Only hosts that announce something are compared: with the bus down nobody does. */
async function noteMissing(ctx: ControlContext): Promise<void> {
  const rows = new Map<string, MachineRow>()
  for (const row of ctx.hosts.machineRows()) rows.set(row.id, row)
  const speaking = new Set([...rows.values()].map(({ host }) => host))
  const missing = (await livePlacements(ctx)).filter(
    ({ machine_id, status, host_id }) =>
      status === 'placed' &&
      speaking.has(host_id) &&
      ctx.hosts.reachable(host_id) &&
      !rows.has(machine_id),
  )
  for (const { machine_id, name, host_id } of missing.slice(0, missingMax)) {
    const app = await findApp(ctx, name)
    // The host itself is asked; what it does not have is marked as gone there.
    const machine = app && (await getMachine(ctx, app, machine_id))
    if (machine?.state !== 'destroyed') continue
    ctx.log.warn({ machine: machine_id, app: name, host: host_id }, 'a machine is not on its host')
  }
}
