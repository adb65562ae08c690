import { isFault } from '#core/fault.ts'
import {
  volumeChangeSchema,
  volumeExtendSchema,
  type Volume,
  type VolumeExtended,
} from '#spec/volume.ts'
import type { AppRecord } from '../apps/index.ts'
import type { ControlContext } from '../context.ts'
import { callHost } from '../hosts/index.ts'
import { livePlacementOf, markLeaving, parsed, placementOf, rememberVolume } from './placements.ts'
import { getVolume } from './read.ts'

/** VOL-17: `snapshot_retention` and `auto_backup_enabled`; what is absent stays. The host acts on them, so it keeps them. */
export async function changeVolume(
  ctx: ControlContext,
  app: AppRecord,
  id: string,
  raw: unknown,
): Promise<Volume> {
  const body = parsed(volumeChangeSchema, raw)
  const row = await livePlacementOf(ctx, app, id)
  const path = `/v1/volumes/${id}`
  const volume = await callHost<Volume>(ctx, row, { method: 'PUT', path, body })
  await rememberVolume(ctx, volume)
  return volume
}

/** VOL-2: larger only, also while a machine uses it. */
export async function extendVolume(
  ctx: ControlContext,
  app: AppRecord,
  id: string,
  raw: unknown,
): Promise<VolumeExtended> {
  const body = parsed(volumeExtendSchema, raw)
  const row = await livePlacementOf(ctx, app, id)
  const extended = await callHost<VolumeExtended>(ctx, row, {
    method: 'PUT',
    path: `/v1/volumes/${id}/extend`,
    body,
    timeoutMs: 60_000,
  })
  await rememberVolume(ctx, extended.volume)
  return extended
}

/**
 * VOL-11: refused by the host while a machine has it; kept there for a day as `pending_destroy`. Returns the volume on its
 * way out; the same for one that is on it already.
 */
export async function destroyVolume(
  ctx: ControlContext,
  app: AppRecord,
  id: string,
): Promise<Volume> {
  const row = await placementOf(ctx, app, id)
  const volume = await getVolume(ctx, app, id)
  try {
    await callHost(ctx, row, { method: 'DELETE', path: `/v1/volumes/${id}`, timeoutMs: 60_000 })
  } catch (error) {
    if (!isFault(error, 'not_found')) throw error
  }
  const pending: Volume = { ...volume, state: 'pending_destroy' }
  await rememberVolume(ctx, pending)
  await markLeaving(ctx, id)
  return pending
}
