import { sql } from 'kysely'
import { z } from 'zod'
import { Fault } from '#core/fault.ts'
import type { Volume } from '#spec/volume.ts'
import type { AppRecord } from '../apps/index.ts'
import type { ControlContext } from '../context.ts'
import type { HostRef } from '../hosts/index.ts'
import type { VolumeStatus } from '../store/index.ts'

export type Store = Pick<ControlContext, 'db'>
type AppId = Pick<AppRecord, 'id'>

/** A volume that exists, or that its user has destroyed and its host still keeps (`leaving`). */
export interface VolumePlacement extends HostRef {
  volume_id: string
  app_id: string
  name: string
  region: string
  status: VolumeStatus
  last_known: Volume | null
}

const columns = [
  'volume_id',
  'app_id',
  'name',
  'region',
  'host_id',
  'host_api',
  'status',
  'last_known',
] as const

/** Destroyed by its user: its data may still be on the host, and no machine gets it any more. */
export const isDestroyed = ({ state }: Volume): boolean =>
  state === 'scheduling_destroy' || state === 'pending_destroy'

/** The app's volumes, oldest first, with those on their way out. */
export async function placementsOf(ctx: Store, app: AppId): Promise<VolumePlacement[]> {
  return ctx.db
    .selectFrom('volume_placements')
    .select(columns)
    .where('app_id', '=', app.id)
    .where('status', 'in', ['placed', 'leaving'])
    .orderBy('created_at')
    .execute()
}

/** Volumes of live apps of the organization: what a new volume may be made from, and where its snapshots are. */
export async function placementsOfOrg(
  ctx: Store,
  orgId: string,
): Promise<Omit<VolumePlacement, 'last_known'>[]> {
  return ctx.db
    .selectFrom('volume_placements')
    .innerJoin('apps', 'apps.id', 'volume_placements.app_id')
    .select([
      'volume_id',
      'app_id',
      'volume_placements.name',
      'region',
      'host_id',
      'host_api',
      'volume_placements.status',
    ])
    .where('apps.org_id', '=', orgId)
    .where('apps.deleted_at', 'is', null)
    .where('volume_placements.status', 'in', ['placed', 'leaving'])
    .execute()
}

/** Where a volume is that a machine of the app could have. */
export async function findVolume(
  ctx: Store,
  app: AppId,
  id: string,
): Promise<VolumePlacement | undefined> {
  const row = await findPlacement(ctx, app, id)
  return row?.status === 'placed' ? row : undefined
}

async function findPlacement(
  ctx: Store,
  app: AppId,
  id: string,
): Promise<VolumePlacement | undefined> {
  return ctx.db
    .selectFrom('volume_placements')
    .select(columns)
    .where('app_id', '=', app.id)
    .where('volume_id', '=', id)
    .where('status', 'in', ['placed', 'leaving'])
    .executeTakeFirst()
}

/** Also one that is on its way out. Fault `not_found`. */
export async function placementOf(
  ctx: Store,
  app: AppRecord,
  id: string,
): Promise<VolumePlacement> {
  const row = await findPlacement(ctx, app, id)
  if (!row) throw new Fault('not_found', `volume not found: app ${app.name} has no volume ${id}`)
  return row
}

/** One that can be changed. Faults: `not_found`, `precondition_failed` when it is on its way out. */
export async function livePlacementOf(
  ctx: Store,
  app: AppRecord,
  id: string,
): Promise<VolumePlacement> {
  const row = await placementOf(ctx, app, id)
  if (row.status !== 'leaving') return row
  throw new Fault(
    'precondition_failed',
    `volume ${id} was destroyed; what it held can be had from one of its snapshots: create a volume with its snapshot_id`,
  )
}

/**
 * Keeps what the host said last. One that the host is told to destroy is `leaving`, also when control died before it
 * could write that down.
 */
export async function rememberVolume(ctx: ControlContext, volume: Volume): Promise<void> {
  await ctx.db
    .updateTable('volume_placements')
    .set({ last_known: JSON.stringify(volume), size_gb: volume.size_gb })
    .where('volume_id', '=', volume.id)
    .execute()
  if (isDestroyed(volume)) await markLeaving(ctx, volume.id)
}

export async function markLeaving(ctx: ControlContext, id: string): Promise<void> {
  await ctx.db
    .updateTable('volume_placements')
    .set({ status: 'leaving', destroyed_at: new Date(ctx.clock.now()) })
    .where('volume_id', '=', id)
    .where('status', '=', 'placed')
    .execute()
}

export async function markVolumeGone(ctx: Store, id: string): Promise<void> {
  await ctx.db
    .updateTable('volume_placements')
    .set({ status: 'gone', gone_at: sql<Date>`coalesce(gone_at, now())` })
    .where('volume_id', '=', id)
    .execute()
}

/** All of the app's volumes are to go, reachable or not, with those that are leaving and their snapshots. VOL-11. */
export async function doomVolumes(ctx: Store, app: AppId): Promise<void> {
  await ctx.db
    .updateTable('volume_placements')
    .set({ status: 'doomed' })
    .where('app_id', '=', app.id)
    .where('status', 'in', ['placing', 'placed', 'leaving'])
    .execute()
}

/** Fault `invalid`, which names the field. */
export function parsed<S extends z.ZodType>(schema: S, raw: unknown): z.output<S> {
  const result = schema.safeParse(raw ?? {})
  if (result.success) return result.data
  const issue = result.error.issues[0]
  throw new Fault('invalid', `${issue?.path.join('.')}: ${issue?.message}`)
}
