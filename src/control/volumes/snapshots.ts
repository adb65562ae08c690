import { newSnapshotId } from '#core/ids.ts'
import type { Snapshot } from '#spec/volume.ts'
import type { AppRecord } from '../apps/index.ts'
import type { ControlContext } from '../context.ts'
import { callHost } from '../hosts/index.ts'
import { livePlacementOf, placementOf } from './placements.ts'

/** VOL-14: oldest first, also of a volume that was destroyed. */
export async function listSnapshots(
  ctx: ControlContext,
  app: AppRecord,
  volumeId: string,
): Promise<Snapshot[]> {
  const row = await placementOf(ctx, app, volumeId)
  const path = `/v1/volumes/${volumeId}/snapshots`
  return callHost<Snapshot[]>(ctx, row, { method: 'GET', path })
}

/** VOL-14: on demand. It is `created` later: ask for the list. */
export async function createSnapshot(
  ctx: ControlContext,
  app: AppRecord,
  volumeId: string,
): Promise<Snapshot> {
  const row = await livePlacementOf(ctx, app, volumeId)
  return callHost<Snapshot>(ctx, row, {
    method: 'POST',
    path: `/v1/volumes/${volumeId}/snapshots`,
    body: { id: newSnapshotId() },
    timeoutMs: 60_000,
  })
}
