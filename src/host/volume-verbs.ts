import { Fault, isFault, messageOf } from '#core/fault.ts'
import type { HostVolumeCreate } from '#spec/host-api.ts'
import type { Volume, VolumeChange, VolumeExtended } from '#spec/volume.ts'
import { refuseToMake, type Agent } from './agent.ts'
import { beginSnapshot, requireSnapshot } from './snapshot-verbs.ts'
import type { SnapshotRecord, VolumeRecord } from './store/index.ts'
import { beginFill } from './volume-fill.ts'
import { isOfApp, requireUsable, saveVolume, showVolume } from './volume-present.ts'
import { told } from './told.ts'

/** CONF-5. */
const sizeGbDefault = 3
const retentionDaysDefault = 5
/** VOL-11: how long a destroyed volume can still be rescued. */
const destroyedKeptMs = 24 * 3_600_000

/**
 * Written down first, then made: a repeated create of the same id goes on where the first one stopped. One that is made
 * from another is answered at once and filled behind it (VOL-13, VOL-15).
 */
export async function createVolume(agent: Agent, request: HostVolumeCreate): Promise<Volume> {
  const { id, app, source } = request
  const found = agent.store.volumes.find(id)
  if (!found && agent.unwanted.has(id)) {
    throw new Fault('conflict', `volume ${id} was destroyed while it was made; make another`)
  }
  const record: VolumeRecord = found ?? {
    app,
    volume: newVolume(agent, request),
    destroyAt: null,
    ...(source ? { source } : {}),
  }
  if (!found) saveVolume(agent, record)
  const { state } = record.volume
  if (state === 'creating') await makeVolume(agent, id)
  else if (state === 'restoring' || state === 'hydrating') beginFill(agent, id)
  return showVolume(agent, id)
}

function newVolume(agent: Agent, { id, input, source }: HostVolumeCreate): Volume {
  if (input.fstype === 'raw') {
    throw new Fault('not_available_yet', 'raw volumes are not available; leave fstype out for ext4')
  }
  if (source) checkSource(agent, source)
  const sizeGb = input.size_gb || source?.size_gb || sizeGbDefault
  if (source && sizeGb < source.size_gb) {
    throw new Fault(
      'invalid',
      `${source.kind} ${source.id} has ${source.size_gb} GB; a volume made from it has at least as many, not ${sizeGb}`,
    )
  }
  return {
    id,
    name: input.name,
    state: source ? (source.kind === 'snapshot' ? 'restoring' : 'hydrating') : 'creating',
    size_gb: sizeGb,
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
}

/** What this host can already tell about a source of its own. */
function checkSource(agent: Agent, source: NonNullable<HostVolumeCreate['source']>): void {
  if (source.host_api !== agent.host.api) return
  if (source.kind === 'volume') requireUsable(agent.store.volumes.get(source.id), 'forked')
  else requireSnapshot(agent, source.id, 'created')
}

async function makeVolume(agent: Agent, id: string): Promise<void> {
  await agent.volumes.create({
    id,
    sizeGb: agent.store.volumes.get(id).volume.size_gb,
    fstype: 'ext4',
  })
  const record = agent.store.volumes.get(id)
  if (record.volume.state !== 'creating') return
  saveVolume(agent, { ...record, volume: { ...record.volume, state: 'created' } })
}

/** VOL-17: what is absent stays. */
export async function changeVolume(
  agent: Agent,
  id: string,
  change: VolumeChange,
): Promise<Volume> {
  const record = agent.store.volumes.get(id)
  const { snapshot_retention, auto_backup_enabled } = record.volume
  const volume: Volume = {
    ...record.volume,
    snapshot_retention: change.snapshot_retention ?? snapshot_retention,
    auto_backup_enabled: change.auto_backup_enabled ?? auto_backup_enabled,
  }
  saveVolume(agent, { ...record, volume })
  return showVolume(agent, id)
}

/**
 * VOL-2: larger only, also in use. Written down before it is done; done again after a crash.
 * @throws Fault `invalid` for a size that is not larger
 */
export async function extendVolume(
  agent: Agent,
  id: string,
  sizeGb: number,
): Promise<VolumeExtended> {
  const record = agent.store.volumes.get(id)
  requireUsable(record, 'extended')
  const { size_gb } = record.volume
  if (sizeGb <= size_gb || sizeGb < (record.extendTo ?? 0)) {
    throw new Fault(
      'invalid',
      `volume ${id} has ${Math.max(size_gb, record.extendTo ?? 0)} GB and can only be made larger, not ${sizeGb} GB`,
    )
  }
  const volume: Volume = { ...record.volume, state: 'extending' }
  saveVolume(agent, { ...record, volume, extendTo: sizeGb })
  const grown = await growVolume(agent, id)
  return { volume: await showVolume(agent, id), needs_restart: !grown }
}

/** Does what `extendTo` says. False when the space is seen only after the next start of the machine. */
export async function growVolume(agent: Agent, id: string): Promise<boolean> {
  const { extendTo } = agent.store.volumes.get(id)
  if (extendTo === undefined) return true
  try {
    const grown = await agent.volumes.extend({ id, sizeGb: extendTo })
    const { extendTo: now, ...record } = agent.store.volumes.get(id)
    // Somebody wanted even more meanwhile: theirs will end it.
    if (now !== extendTo) return grown
    const { error: _, ...volume } = record.volume
    const state = record.destroyAt === null ? 'created' : volume.state
    saveVolume(agent, { ...record, volume: { ...volume, size_gb: extendTo, state } })
    return grown
  } catch (error) {
    const record = agent.mode === 'closed' ? undefined : agent.store.volumes.find(id)
    if (record) {
      saveVolume(agent, { ...record, volume: { ...record.volume, error: told(agent, error) } })
    }
    throw error
  }
}

/** How long the destruction of a volume waits for that of its machine: nothing of a killed one takes longer. */
const leavingMsMax = 10_000

/** VOL-11: only unattached, and gone for good only after a day. */
export async function destroyVolume(agent: Agent, id: string): Promise<Volume> {
  await machineHasLeft(agent, id)
  const record = agent.store.volumes.get(id)
  const { volume } = record
  if (volume.attached_machine_id !== null) {
    throw new Fault(
      'precondition_failed',
      `volume ${id} is attached to machine ${volume.attached_machine_id}; destroy the machine first`,
    )
  }
  if (record.destroyAt === null) {
    const pending: Volume = { ...volume, state: 'pending_destroy' }
    const destroyAt = agent.clock.now() + destroyedKeptMs
    saveVolume(agent, { ...record, volume: pending, destroyAt })
    agent.fills.get(id)?.abort()
  }
  return showVolume(agent, id)
}

/** Who destroys a machine and then its volume need not know that the machine goes away behind the answer. */
async function machineHasLeft(agent: Agent, id: string): Promise<void> {
  const { attached_machine_id: machine } = agent.store.volumes.get(id).volume
  if (machine === null || agent.store.machines.find(machine)?.life.state !== 'destroying') return
  const left = () =>
    agent.store.volumes.find(id)?.volume.attached_machine_id !== machine || undefined
  await agent.changes.until(machine, left, { timeoutMs: leavingMsMax })
}

/** VOL-11: an app that is deleted takes its volumes and snapshots with it at once, as soon as no machine has them. */
export function dropVolumesOfApp(agent: Agent, app: string): void {
  drop(agent, {
    volumes: agent.store.volumes.all().filter((record) => isOfApp(record, app)),
    snapshots: agent.store.snapshots.all().filter((record) => isOfApp(record, app)),
  })
}

/**
 * One volume of an app that was deleted while this host was away, or that its maker gave up: it and its snapshots, which may
 * be all that is left of it. A create that still comes is refused.
 * @throws Fault `not_found` when there is nothing
 */
export function dropVolume(agent: Agent, id: string): void {
  const found = agent.store.volumes.find(id)
  const snapshots = agent.store.snapshots.ofVolume(id)
  if (!found) refuseToMake(agent, id)
  if (!found && snapshots.length === 0) agent.store.volumes.get(id)
  drop(agent, { volumes: found ? [found] : [], snapshots })
}

function drop(
  agent: Agent,
  { volumes, snapshots }: { volumes: VolumeRecord[]; snapshots: SnapshotRecord[] },
): void {
  const destroyAt = agent.clock.now()
  agent.store.transaction(() => {
    for (const record of volumes) {
      const volume: Volume = { ...record.volume, state: 'pending_destroy' }
      saveVolume(agent, { ...record, volume, destroyAt })
      agent.fills.get(volume.id)?.abort()
    }
    for (const record of snapshots) agent.store.snapshots.save({ ...record, expiresAt: 0 })
  })
}

/** Goes on with what an earlier host process had begun. */
export function recoverVolumes(agent: Agent): void {
  for (const { volume, extendTo, destroyAt } of agent.store.volumes.all()) {
    const { id, state } = volume
    if (destroyAt !== null) continue
    if (state === 'restoring' || state === 'hydrating') beginFill(agent, id)
    const job =
      state === 'creating'
        ? () => makeVolume(agent, id)
        : extendTo === undefined
          ? undefined
          : async () => void (await growVolume(agent, id))
    if (job) inBackground(agent, id, job)
  }
  for (const { snapshot } of agent.store.snapshots.all()) {
    if (snapshot.status === 'waiting' || snapshot.status === 'running') {
      beginSnapshot(agent, snapshot.id)
    }
  }
}

/** In the volume's queue; what fails is told in the log and tried again by the upkeep or the next host process. */
export function inBackground(agent: Agent, id: string, job: () => Promise<void>): void {
  agent.background.push(id, job).catch((error: unknown) => {
    if (agent.mode === 'closed' || isFault(error, 'not_found')) return
    agent.log.error({ volume: id, error: messageOf(error) }, 'the work on a volume failed')
  })
}
