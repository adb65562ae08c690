import { z } from 'zod'
import { Fault, isFault, messageOf } from '#core/fault.ts'
import { newVolumeId } from '#core/ids.ts'
import { resolveGuest } from '#spec/guest-size.ts'
import type { HostVolumeCreate } from '#spec/host-api.ts'
import { guestSchema } from '#spec/machine-config.ts'
import { volumeInputSchema, volumeSchema, type Volume } from '#spec/volume.ts'
import { appRef, holdApp, type AppRecord } from '../apps/index.ts'
import type { ControlContext } from '../context.ts'
import { callHost, freshHosts, type HostRef } from '../hosts/index.ts'
import { place, regionPreferences } from '../schedule/index.ts'
import { runnerLives, thisRunner } from '../runner.ts'
import type { VolumeOptions } from '../store/index.ts'

export interface VolumePlacement extends HostRef {
  volume_id: string
  name: string
  region: string
  last_known: Volume | null
  options: VolumeOptions
}

/** Longer than any create takes. */
const placingMsMax = 5 * 60_000

type Store = Pick<ControlContext, 'db'>
type AppId = Pick<AppRecord, 'id'>

const columns = [
  'volume_id',
  'name',
  'region',
  'host_id',
  'host_api',
  'last_known',
  'options',
] as const

function placements(ctx: Store, app: AppId) {
  return ctx.db
    .selectFrom('volume_placements')
    .select(columns)
    .where('app_id', '=', app.id)
    .where('status', '=', 'placed')
    .orderBy('created_at')
}

/** Where a live volume of the app is. */
export async function findVolume(
  ctx: Store,
  app: AppId,
  id: string,
): Promise<VolumePlacement | undefined> {
  return placements(ctx, app).where('volume_id', '=', id).executeTakeFirst()
}

async function volumeOf(ctx: Store, app: AppRecord, id: string): Promise<VolumePlacement> {
  const volume = await findVolume(ctx, app, id)
  if (!volume) throw new Fault('not_found', `volume not found: app ${app.name} has no volume ${id}`)
  return volume
}

/** VOL-17, CONF-5: makes a volume on a host of the region. Faults: `invalid`, `insufficient_capacity`. */
export async function createVolume(
  ctx: ControlContext,
  app: AppRecord,
  raw: unknown,
): Promise<Volume> {
  const parsed = volumeInputSchema.safeParse(raw)
  if (!parsed.success) {
    const issue = parsed.error.issues[0]
    throw new Fault('invalid', `${issue?.path.join('.')}: ${issue?.message}`)
  }
  const input = parsed.data
  if (input.snapshot_id || input.source_volume_id) {
    throw new Fault(
      'not_available_yet',
      'a volume cannot be made from a snapshot or another volume yet; nothing was made',
    )
  }
  const size_gb = input.size_gb || 3
  const host = await hostForVolume(ctx, app, raw)
  const id = newVolumeId()
  await ctx.db.transaction().execute(async (trx) => {
    await holdApp(trx, app)
    await trx
      .insertInto('volume_placements')
      .values({
        volume_id: id,
        app_id: app.id,
        name: input.name,
        size_gb,
        ...host,
        status: 'placing',
        placed_by: thisRunner,
      })
      .execute()
  })
  // One that the deletion of its app has doomed meanwhile stays so.
  const setStatus = (status: 'placed' | 'doomed' | 'gone') =>
    ctx.db
      .updateTable('volume_placements')
      .set({ status })
      .where('volume_id', '=', id)
      .where('status', '=', 'placing')
      .execute()
  try {
    const body: HostVolumeCreate = {
      id,
      app: appRef(app),
      input: { ...input, size_gb, region: host.region },
    }
    const volume = await callHost<Volume>(ctx, host, {
      method: 'POST',
      path: '/v1/volumes',
      body,
      timeoutMs: 60_000,
    })
    await setStatus('placed')
    await rememberVolume(ctx, volume)
    return volume
  } catch (error) {
    await setStatus(isFault(error, 'host_unreachable') ? 'doomed' : 'gone')
    throw error
  }
}

/** VOL-6, VOL-7: away from the hosts of the app's other volumes, on one with room for the machine that will mount it. */
async function hostForVolume(
  ctx: ControlContext,
  app: AppRecord,
  raw: unknown,
): Promise<HostRef & { region: string }> {
  const { region, compute } = raw as { region?: string | null; compute?: unknown }
  const hint = guestSchema.nullish().safeParse(compute)
  if (!hint.success) throw new Fault('invalid', 'compute: must be a guest, as in a machine config')
  const wanted = regionPreferences(region)
  const hosts = await freshHosts(ctx)
  const placement = place({
    hosts,
    now: ctx.clock.now(),
    demand: {
      regions: wanted.length > 0 ? wanted : ctx.settings.regions.slice(0, 1),
      guest: resolveGuest({ guest: hint.data ?? undefined }),
      count: 1,
      nearHosts: (await placements(ctx, app).execute()).map((volume) => volume.host_id),
    },
  })
  if ('error' in placement) {
    const error = placement.error.replace('resource for machine', 'resource for volume')
    throw new Fault('insufficient_capacity', error)
  }
  const row = hosts.find((one) => one.host === placement.hosts[0])
  if (!row) throw new Fault('internal', 'placement named a host that is not there')
  return { host_id: row.host, host_api: row.api, region: row.region }
}

async function rememberVolume(ctx: Store, volume: Volume): Promise<void> {
  await ctx.db
    .updateTable('volume_placements')
    .set({ last_known: JSON.stringify(volume) })
    .where('volume_id', '=', volume.id)
    .execute()
}

/** VOL-17: all volumes of the app, oldest first. A silent host's are shown as last known (VOL-18). */
export async function listVolumes(ctx: ControlContext, app: AppRecord): Promise<Volume[]> {
  const rows = await placements(ctx, app).execute()
  const byHost = Map.groupBy(rows, (row) => row.host_id)
  const lists = await Promise.all(
    [...byHost.values()].map(async (group): Promise<Volume[]> => {
      const host = group[0] as VolumePlacement
      try {
        return await callHost<Volume[]>(ctx, host, {
          method: 'GET',
          path: '/v1/volumes',
          query: { app: app.id },
          timeoutMs: 5_000,
        })
      } catch (error) {
        ctx.log.warn({ host: host.host_id, error: messageOf(error) }, 'host did not list volumes')
        return group.map(unreachable).filter((volume) => volume !== undefined)
      }
    }),
  )
  const byId = new Map(lists.flat().map((volume) => [volume.id, volume]))
  return rows
    .map((row) => withOptions(byId.get(row.volume_id), row))
    .filter((volume) => volume !== undefined)
}

const unreachable = (row: VolumePlacement): Volume | undefined =>
  row.last_known ? { ...row.last_known, ...row.options, host_status: 'unreachable' } : undefined

const withOptions = (volume: Volume | undefined, row: VolumePlacement): Volume | undefined =>
  volume && { ...volume, ...row.options }

export async function getVolume(ctx: ControlContext, app: AppRecord, id: string): Promise<Volume> {
  const row = await volumeOf(ctx, app, id)
  try {
    const volume = await callHost<Volume>(ctx, row, { method: 'GET', path: `/v1/volumes/${id}` })
    await rememberVolume(ctx, volume)
    return { ...volume, ...row.options }
  } catch (error) {
    const known = isFault(error, 'host_unreachable') ? unreachable(row) : undefined
    if (!known) throw error
    return known
  }
}

const volumeChangeSchema = volumeSchema
  .pick({ snapshot_retention: true, auto_backup_enabled: true })
  .extend({ snapshot_retention: z.int().min(1).max(60) })
  .partial()

/** VOL-17: `snapshot_retention` and `auto_backup_enabled`; what is absent stays. */
export async function changeVolume(
  ctx: ControlContext,
  app: AppRecord,
  id: string,
  raw: unknown,
): Promise<Volume> {
  const row = await volumeOf(ctx, app, id)
  const given = Object.entries((raw ?? {}) as object).filter(([, value]) => value !== null)
  const parsed = volumeChangeSchema.safeParse(Object.fromEntries(given))
  if (!parsed.success) {
    const issue = parsed.error.issues[0]
    throw new Fault('invalid', `${issue?.path.join('.')}: ${issue?.message}`)
  }
  await ctx.db
    .updateTable('volume_placements')
    .set({ options: JSON.stringify({ ...row.options, ...parsed.data }) })
    .where('volume_id', '=', id)
    .execute()
  return getVolume(ctx, app, id)
}

/** VOL-11: refused by the host while a machine has it. Returns the volume as it was, on its way out. */
export async function destroyVolume(
  ctx: ControlContext,
  app: AppRecord,
  id: string,
): Promise<Volume> {
  const row = await volumeOf(ctx, app, id)
  const volume = await getVolume(ctx, app, id)
  try {
    await callHost(ctx, row, { method: 'DELETE', path: `/v1/volumes/${id}`, timeoutMs: 60_000 })
  } catch (error) {
    if (!isFault(error, 'not_found')) throw error
  }
  await ctx.db
    .updateTable('volume_placements')
    .set({ status: 'gone' })
    .where('volume_id', '=', id)
    .execute()
  return { ...volume, state: 'pending_destroy' }
}

/** All of the app's volumes are to go, reachable or not. */
export async function doomVolumes(ctx: Store, app: AppId): Promise<void> {
  await ctx.db
    .updateTable('volume_placements')
    .set({ status: 'doomed' })
    .where('app_id', '=', app.id)
    .where('status', 'in', ['placing', 'placed'])
    .execute()
}

/** Destroys volumes that nobody wants. Safe to repeat; returns how many are left. */
export async function destroyAbandonedVolumes(
  ctx: ControlContext,
  options: { appId?: string } = {},
): Promise<number> {
  let query = ctx.db
    .selectFrom('volume_placements')
    .select([...columns, 'status', 'placed_by', 'created_at'])
    .where('status', 'in', ['placing', 'doomed'])
    .limit(1_000)
  if (options.appId !== undefined) query = query.where('app_id', '=', options.appId)
  let left = 0
  const rows = (await query.execute()).filter(
    (row) =>
      row.status === 'doomed' ||
      !runnerLives(row.placed_by) ||
      ctx.clock.now() - row.created_at.getTime() > placingMsMax,
  )
  for (const row of rows) {
    try {
      await callHost(ctx, row, {
        method: 'DELETE',
        path: `/v1/volumes/${row.volume_id}`,
        source: 'flyd',
      })
    } catch (error) {
      if (!isFault(error, 'not_found')) {
        left++
        continue
      }
    }
    await ctx.db
      .updateTable('volume_placements')
      .set({ status: 'gone' })
      .where('volume_id', '=', row.volume_id)
      .execute()
  }
  return left
}
