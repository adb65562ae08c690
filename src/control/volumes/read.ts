import { isFault, messageOf } from '#core/fault.ts'
import type { Volume } from '#spec/volume.ts'
import type { AppRecord } from '../apps/index.ts'
import type { ControlContext } from '../context.ts'
import { callHost } from '../hosts/index.ts'
import {
  isDestroyed,
  placementOf,
  placementsOf,
  rememberVolume,
  type VolumePlacement,
} from './placements.ts'

/**
 * VOL-17: all volumes of the app, oldest first; destroyed ones are `pending_destroy` until their host has removed them,
 * and clients hide them (VOL-11). A silent host's are shown as last known (VOL-18).
 */
export async function listVolumes(ctx: ControlContext, app: AppRecord): Promise<Volume[]> {
  const rows = await placementsOf(ctx, app)
  const byHost = Map.groupBy(rows, (row) => row.host_id)
  const lists = await Promise.all(
    [...byHost.values()].map((group) => listOnHost(ctx, app, group as [VolumePlacement])),
  )
  const byId = new Map(lists.flat().map((volume) => [volume.id, volume]))
  for (const row of rows) {
    const volume = byId.get(row.volume_id)
    if (volume?.host_status === 'ok' && hasChanged(volume, row)) await rememberVolume(ctx, volume)
  }
  return rows.map((row) => byId.get(row.volume_id)).filter((volume) => volume !== undefined)
}

/** A list is asked for often: only what is worth knowing of a silent host's volume is written down again. */
const hasChanged = (now: Volume, { last_known: last, status }: VolumePlacement): boolean =>
  (isDestroyed(now) && status === 'placed') ||
  now.state !== last?.state ||
  now.size_gb !== last.size_gb ||
  now.attached_machine_id !== last.attached_machine_id

async function listOnHost(
  ctx: ControlContext,
  app: AppRecord,
  rows: [VolumePlacement, ...VolumePlacement[]],
): Promise<Volume[]> {
  try {
    return await callHost<Volume[]>(ctx, rows[0], {
      method: 'GET',
      path: '/v1/volumes',
      query: { app: app.id },
      timeoutMs: 5_000,
    })
  } catch (error) {
    ctx.log.warn({ host: rows[0].host_id, error: messageOf(error) }, 'host did not list volumes')
    return rows.map(unreachable).filter((volume) => volume !== undefined)
  }
}

const unreachable = (row: VolumePlacement): Volume | undefined =>
  row.last_known ? { ...row.last_known, host_status: 'unreachable' } : undefined

/** Also one that was destroyed, while its host keeps it. */
export async function getVolume(ctx: ControlContext, app: AppRecord, id: string): Promise<Volume> {
  const row = await placementOf(ctx, app, id)
  try {
    const volume = await callHost<Volume>(ctx, row, { method: 'GET', path: `/v1/volumes/${id}` })
    await rememberVolume(ctx, volume)
    return volume
  } catch (error) {
    const known = isFault(error, 'host_unreachable') ? unreachable(row) : undefined
    if (!known) throw error
    return known
  }
}
