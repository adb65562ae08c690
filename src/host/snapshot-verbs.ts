import type { Readable } from 'node:stream'
import { Fault, isFault, messageOf } from '#core/fault.ts'
import { limits } from '#core/limits.ts'
import type { HostSnapshotCreate } from '#spec/host-api.ts'
import type { Snapshot } from '#spec/volume.ts'
import type { Agent } from './agent.ts'
import type { SnapshotRecord } from './store/index.ts'
import { requireUsable } from './volume-present.ts'
import { told } from './told.ts'

const dayMs = 24 * 3_600_000
const gibibyte = 1024 ** 3
/** What failed, and what was only for a transfer, is kept so long. */
const scrapKeptMs = dayMs

/**
 * VOL-14: a volume as it is at one moment. Answers `waiting` and is taken behind the answer; the same id again is the
 * same snapshot.
 */
export function takeSnapshot(
  agent: Agent,
  volumeId: string,
  request: HostSnapshotCreate,
): Snapshot {
  const { id, transfer = false } = request
  const found = agent.store.snapshots.find(id)
  if (found && found.snapshot.volume_id !== volumeId) {
    throw new Fault('conflict', `snapshot ${id} is of volume ${found.snapshot.volume_id}`)
  }
  if (found && found.expiresAt > agent.clock.now()) return found.snapshot
  if (found) throw new Fault('conflict', `snapshot ${id} is being removed; try again`)
  const record = agent.store.volumes.get(volumeId)
  requireUsable(record, 'copied')
  if (agent.store.snapshots.ofVolume(volumeId).length >= limits.snapshotsPerVolumeMax) {
    throw new Fault(
      'limit_reached',
      `volume ${volumeId} has ${limits.snapshotsPerVolumeMax} snapshots, which is all it may have; lower its retention or wait until some expire`,
    )
  }
  const now = agent.clock.now()
  const { size_gb, snapshot_retention } = record.volume
  const snapshot: Snapshot = {
    id,
    volume_id: volumeId,
    size: 0,
    volume_size: size_gb * gibibyte,
    digest: '',
    created_at: new Date(now).toISOString(),
    status: 'waiting',
    retention_days: snapshot_retention,
  }
  const expiresAt = now + (transfer ? scrapKeptMs : snapshot_retention * dayMs)
  agent.store.snapshots.save({ app: record.app, snapshot, transfer, expiresAt, changedAt: null })
  beginSnapshot(agent, id)
  return snapshot
}

/** Takes a snapshot that is written down. Done again after a crash: half a one is never `created`. */
export function beginSnapshot(agent: Agent, id: string): void {
  agent.background
    .push(id, () => take(agent, id))
    .catch((error: unknown) => {
      if (agent.mode === 'closed') return
      agent.log.error({ snapshot: id, error: messageOf(error) }, 'a snapshot failed')
    })
}

async function take(agent: Agent, id: string): Promise<void> {
  const before = wanted(agent, id)
  if (!before) return
  const { volume_id: volume } = before.snapshot
  agent.store.snapshots.save({ ...before, snapshot: { ...before.snapshot, status: 'running' } })
  try {
    const { bytes, digest, changedAt } = await agent.volumes.snapshots.take({ id, volume })
    const record = wanted(agent, id)
    if (!record) return
    const snapshot: Snapshot = { ...record.snapshot, size: bytes, digest, status: 'created' }
    agent.store.snapshots.save({ ...record, snapshot, changedAt })
  } catch (error) {
    const record = wanted(agent, id)
    if (!record) return
    agent.log.warn({ snapshot: id, volume, error: messageOf(error) }, 'a snapshot failed')
    const snapshot: Snapshot = { ...record.snapshot, status: 'failed', error: told(agent, error) }
    const expiresAt = Math.min(record.expiresAt, agent.clock.now() + scrapKeptMs)
    const failure = isFault(error) ? error.code : 'internal'
    agent.store.snapshots.save({ ...record, snapshot, expiresAt, failure })
  }
}

/** The record of a snapshot that somebody still wants. */
function wanted(agent: Agent, id: string): SnapshotRecord | undefined {
  if (agent.mode === 'closed') return undefined
  const record = agent.store.snapshots.find(id)
  return record && record.expiresAt > agent.clock.now() ? record : undefined
}

/** Of a volume that is there, or was: oldest first, without those that are only for a transfer. */
export function listSnapshots(agent: Agent, volume: string): Snapshot[] {
  const records = agent.store.snapshots.ofVolume(volume)
  if (records.length === 0) agent.store.volumes.get(volume)
  return records
    .filter(({ transfer, expiresAt }) => !transfer && expiresAt > agent.clock.now())
    .map(({ snapshot }) => snapshot)
}

/** @throws Fault `not_found`, also for one that expired; `precondition_failed` when it is not in the wanted state */
export function requireSnapshot(agent: Agent, id: string, status?: Snapshot['status']): Snapshot {
  const record = wanted(agent, id)
  if (!record) {
    throw new Fault('not_found', `snapshot not found: ${id} is not on this host, or it expired`)
  }
  const { snapshot } = record
  if (status && snapshot.status !== status) {
    const why = snapshot.error ? `: ${snapshot.error}` : ''
    throw new Fault('precondition_failed', `snapshot ${id} is ${snapshot.status}${why}`)
  }
  return snapshot
}

/**
 * Its bytes, as `packDisk` gives them.
 * @throws like `requireSnapshot`, and of one that failed the fault with which it did: who fetches it knows whether to try again
 */
export function readSnapshot(agent: Agent, id: string): Readable {
  const { failure, snapshot } = wanted(agent, id) ?? {}
  if (failure) throw new Fault(failure, `snapshot ${id} failed: ${snapshot?.error}`)
  requireSnapshot(agent, id, 'created')
  return agent.volumes.snapshots.read(id)
}

/** Gone for everybody at once; its bytes go behind the answer. */
export function deleteSnapshot(agent: Agent, id: string): void {
  requireSnapshot(agent, id)
  const record = agent.store.snapshots.find(id)
  if (record) agent.store.snapshots.save({ ...record, expiresAt: 0 })
  agent.background
    .push(id, () => removeExpired(agent, id))
    .catch((error: unknown) => {
      agent.log.warn({ snapshot: id, error: messageOf(error) }, 'a snapshot is left')
    })
}

/** Its bytes and then its record, when its time has come. */
export async function removeExpired(agent: Agent, id: string): Promise<void> {
  const record = agent.mode === 'closed' ? undefined : agent.store.snapshots.find(id)
  if (!record || record.expiresAt > agent.clock.now()) return
  await agent.volumes.snapshots.remove(id)
  if (agent.mode !== 'closed') agent.store.snapshots.remove(id)
}
