import { Fault } from '#core/fault.ts'
import type { HostVolumeCreate } from '#spec/host-api.ts'
import type { Volume } from '#spec/volume.ts'
import type { Agent } from './agent.ts'

/** CONF-5. */
const sizeGbDefault = 3
const retentionDaysDefault = 5
/** VOL-11: how long a destroyed volume can still be rescued. */
const destroyedKeptMs = 24 * 3_600_000

/** Written down first, then made: a repeated create of the same id goes on where the first one stopped. */
export async function createVolume(agent: Agent, request: HostVolumeCreate): Promise<Volume> {
  const { id, app, input } = request
  const { fstype } = input
  if (fstype === 'raw') {
    throw new Fault('not_available_yet', 'raw volumes are not available; leave fstype out for ext4')
  }
  const volume: Volume = agent.store.volumes.find(id)?.volume ?? {
    id,
    name: input.name,
    state: 'creating',
    size_gb: input.size_gb || sizeGbDefault,
    region: agent.host.region,
    zone: (agent.host.number % 0x10000).toString(16).padStart(4, '0'),
    encrypted: false,
    attached_machine_id: null,
    attached_alloc_id: null,
    created_at: new Date(agent.clock.now()).toISOString(),
    fstype: 'ext4',
    snapshot_retention: input.snapshot_retention ?? retentionDaysDefault,
    auto_backup_enabled: input.auto_backup_enabled ?? true,
    host_status: 'ok',
  }
  if (volume.state !== 'creating') return volume
  agent.store.volumes.save({ app, volume, destroyAt: null })
  await agent.volumes.create({ id, sizeGb: volume.size_gb, fstype: 'ext4' })
  const created: Volume = { ...volume, state: 'created' }
  agent.store.volumes.save({ app, volume: created, destroyAt: null })
  return created
}

/** Volumes of an app, named by its id or its name; all of the host without one. */
export function listVolumes(agent: Agent, app: string | undefined): Volume[] {
  return agent.store.volumes
    .all()
    .filter((record) => app === undefined || record.app.id === app || record.app.name === app)
    .map((record) => record.volume)
}

/** VOL-11: only unattached, and gone for good only after a day. */
export function destroyVolume(agent: Agent, id: string): Volume {
  const record = agent.store.volumes.get(id)
  const { volume } = record
  if (volume.attached_machine_id !== null) {
    throw new Fault(
      'precondition_failed',
      `volume ${id} is attached to machine ${volume.attached_machine_id}; destroy the machine first`,
    )
  }
  if (record.destroyAt !== null) return volume
  const pending: Volume = { ...volume, state: 'pending_destroy' }
  const destroyAt = agent.clock.now() + destroyedKeptMs
  agent.store.volumes.save({ ...record, volume: pending, destroyAt })
  return pending
}
