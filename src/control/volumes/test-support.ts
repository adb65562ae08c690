import { Fault } from '#core/fault.ts'
import type { HostVolumeCreate } from '#spec/host-api.ts'
import type { Snapshot, Volume, VolumeChange } from '#spec/volume.ts'

/** The app's name, and its id: hosts answer to both. */
export interface Owned {
  app: string
  appId: string
}

/** The volumes of a fake host, in memory. What is made from something is filled at the second look at it. */
export interface FakeVolumes {
  number: number
  volumes: Map<string, Volume & Owned>
  snapshots: Map<string, Snapshot>
  volumeCreates: HostVolumeCreate[]
}

interface VolumeCall {
  method: string
  url: URL
  id: string | undefined
  verb: string | undefined
  body: unknown
}

const gibibyte = 1024 ** 3

export function actOnVolume(host: FakeVolumes, call: VolumeCall): unknown {
  const { method, url, id, verb } = call
  if (id === undefined && method === 'POST') {
    return createVolume(host, call.body as HostVolumeCreate)
  }
  if (id === undefined) {
    const app = url.searchParams.get('app')
    return [...host.volumes.values()].filter((one) => one.app === app || one.appId === app)
  }
  if (verb === 'snapshots' && method === 'GET') {
    return [...host.snapshots.values()].filter((one) => one.volume_id === id)
  }
  const volume = host.volumes.get(id)
  if (!volume) throw new Fault('not_found', `volume not found: ${id}`)
  if (verb === 'extend') return extend(volume, (call.body as { size_gb: number }).size_gb)
  if (verb === 'snapshots') return snapshotOf(host, volume, (call.body as { id: string }).id)
  if (method === 'PUT') {
    const given = Object.entries(call.body as VolumeChange).filter(([, value]) => value !== null)
    return Object.assign(volume, Object.fromEntries(given))
  }
  if (method === 'DELETE') return destroy(host, volume, url.searchParams.get('now') === 'true')
  const seen = { ...volume }
  if (volume.state === 'restoring' || volume.state === 'hydrating') volume.state = 'created'
  return seen
}

export function actOnSnapshot(host: FakeVolumes, id: string | undefined): Snapshot {
  const snapshot = host.snapshots.get(id ?? '')
  if (!snapshot) throw new Fault('not_found', `snapshot not found: ${id}`)
  return snapshot
}

function createVolume(host: FakeVolumes, create: HostVolumeCreate): Volume {
  host.volumeCreates.push(create)
  const { id, app, input, source } = create
  const filling = source?.kind === 'snapshot' ? 'restoring' : 'hydrating'
  const volume: Volume & Owned = {
    id,
    app: app.name,
    appId: app.id,
    name: input.name,
    state: source ? filling : 'created',
    size_gb: input.size_gb ?? 3,
    region: input.region ?? '',
    zone: host.number.toString(16).padStart(4, '0'),
    encrypted: true,
    attached_machine_id: null,
    attached_alloc_id: null,
    created_at: new Date().toISOString(),
    fstype: 'ext4',
    snapshot_retention: input.snapshot_retention ?? 5,
    auto_backup_enabled: input.auto_backup_enabled ?? true,
    host_status: 'ok',
  }
  host.volumes.set(id, volume)
  return { ...volume }
}

function extend(volume: Volume, sizeGb: number): { volume: Volume; needs_restart: boolean } {
  if (sizeGb < volume.size_gb) {
    throw new Fault(
      'invalid',
      `size_gb: volume ${volume.id} has ${volume.size_gb} GB and never shrinks`,
    )
  }
  volume.size_gb = sizeGb
  return { volume, needs_restart: false }
}

function snapshotOf(host: FakeVolumes, volume: Volume, id: string): Snapshot {
  const snapshot = {
    id,
    volume_id: volume.id,
    size: 4096,
    volume_size: volume.size_gb * gibibyte,
    digest: 'sha256:0',
    created_at: new Date().toISOString(),
    status: 'created' as const,
    retention_days: volume.snapshot_retention,
  }
  host.snapshots.set(id, snapshot)
  return snapshot
}

function destroy(host: FakeVolumes, volume: Volume, now: boolean): unknown {
  if (!now) {
    if (volume.attached_machine_id) throw new Fault('precondition_failed', 'it is attached')
    volume.state = 'pending_destroy'
    return volume
  }
  host.volumes.delete(volume.id)
  for (const { id, volume_id } of host.snapshots.values()) {
    if (volume_id === volume.id) host.snapshots.delete(id)
  }
  return { ok: true }
}
