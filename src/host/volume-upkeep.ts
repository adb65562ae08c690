import { isFault, messageOf } from '#core/fault.ts'
import { newSnapshotId } from '#core/ids.ts'
import type { Mount } from '#spec/machine-config.ts'
import { commit, type Agent } from './agent.ts'
import { removeExpired, takeSnapshot } from './snapshot-verbs.ts'
import type { MachineRecord, VolumeRecord } from './store/index.ts'
import { extendVolume, growVolume } from './volume-verbs.ts'

const hourMs = 3_600_000
const dayMs = 24 * hourMs
/** After a daily snapshot that failed. */
const snapshotRetryMs = 6 * hourMs
const dailySnapshotsAtOnceMax = 4
const refusalToldEveryMs = dayMs
const sizeGbMax = 500
const gibibyte = 1024 ** 3

/** What is done for volumes from time to time, and when some are to go at once; never twice at the same time. */
export function keepVolumes(agent: Agent): Promise<void> {
  return agent.passes.run('volumes', () => keepAll(agent))
}

/** One that fails keeps no other from its turn. */
async function keepAll(agent: Agent): Promise<void> {
  const tasks = [reap, growOn, growFull, backUp]
  for (const record of agent.store.volumes.all()) {
    for (const task of tasks) {
      await task(agent, record).catch((error: unknown) => {
        if (agent.mode === 'closed' || isFault(error, 'not_found')) return
        const { id } = record.volume
        agent.log.warn({ volume: id, error: messageOf(error) }, `${task.name} of a volume failed`)
      })
      if (agent.mode === 'closed') return
    }
  }
  for (const { snapshot, expiresAt } of agent.store.snapshots.all()) {
    if (expiresAt > agent.clock.now()) continue
    await removeExpired(agent, snapshot.id).catch((error: unknown) =>
      agent.log.warn({ snapshot: snapshot.id, error: messageOf(error) }, 'a snapshot is left'),
    )
  }
}

/** VOL-11: a destroyed volume whose time has come is really gone, unless a machine still has it. */
async function reap(agent: Agent, { volume, destroyAt }: VolumeRecord): Promise<void> {
  if (destroyAt === null || destroyAt > agent.clock.now()) return
  if (volume.attached_machine_id !== null) return
  await agent.volumes.destroy(volume.id)
  if (agent.mode !== 'closed') agent.store.volumes.remove(volume.id)
}

/** An extension that failed is tried again, one that waited for its VM is ended. */
async function growOn(agent: Agent, record: VolumeRecord): Promise<void> {
  await agent.volumes.growOn(record.volume.id)
  if (record.extendTo !== undefined && record.volume.error) {
    await growVolume(agent, record.volume.id)
  }
}

/** VOL-10: one that is nearly full grows, as its mount says, without a restart of its machine. */
async function growFull(agent: Agent, record: VolumeRecord): Promise<void> {
  const { id, size_gb, state, attached_machine_id } = record.volume
  const machine = attached_machine_id ? agent.store.machines.find(attached_machine_id) : undefined
  const mount = machine?.config.mounts?.find((each) => each.volume === id)
  if (!machine || !mount?.extend_threshold_percent || state !== 'created') return
  const usage = (await agent.volumes.usage([id])).get(id)
  if (!usage) return
  // Seen from within: a file system that grows only at the next mount is not full because it is still small.
  const bytes = Math.max(usage.bytes_total, size_gb * gibibyte * 0.9)
  if ((usage.bytes_used / bytes) * 100 < mount.extend_threshold_percent) return
  const target = nextSize(size_gb, mount)
  if (target <= size_gb) return
  const free = await agent.volumes.freeBytes()
  if (free < (target - size_gb) * gibibyte) return refuseGrowth(agent, { id, machine, target })
  const { needs_restart } = await extendVolume(agent, id, target)
  const status = needs_restart ? 'needs_restart' : 'extended'
  tellGrowth(agent, machine, { status, request: { volume: id, size_gb: target } })
}

function nextSize(sizeGb: number, mount: Mount): number {
  const limit = Math.min(mount.size_gb_limit || sizeGbMax, sizeGbMax)
  return Math.min(sizeGb + (mount.add_size_gb || 1), limit)
}

function refuseGrowth(
  agent: Agent,
  { id, machine, target }: { id: string; machine: MachineRecord; target: number },
): void {
  const now = agent.clock.now()
  // As it is by now: somebody may have changed or destroyed it while the disks were looked at.
  const record = agent.store.volumes.get(id)
  if (now - (record.growthRefusedAt ?? 0) < refusalToldEveryMs) return
  agent.store.volumes.save({ ...record, growthRefusedAt: now })
  const error = `volume ${id} was not extended to ${target} GB: the disk of its host is full; free space on the volume, or fork it to another host`
  tellGrowth(agent, machine, { status: 'skipped', request: { volume: id, error } })
  agent.spool.say(machine.id, { provider: 'runner', level: 'warn', message: error })
}

function tellGrowth(
  agent: Agent,
  machine: MachineRecord,
  event: { status: string; request: Record<string, unknown> },
): void {
  const now = agent.store.machines.get(machine.id)
  commit(agent, now, { events: [{ type: 'extend', source: 'flyd', ...event }] })
}

/** VOL-14: once a day, when something was written since the last one. */
async function backUp(agent: Agent, { volume, destroyAt }: VolumeRecord): Promise<void> {
  if (destroyAt !== null || !volume.auto_backup_enabled || volume.state !== 'created') return
  const now = agent.clock.now()
  const records = agent.store.snapshots.ofVolume(volume.id).filter(({ transfer }) => !transfer)
  const age = ({ created_at }: { created_at: string }) => now - Date.parse(created_at)
  if (records.some(({ snapshot }) => age(snapshot) < snapshotRetryMs)) return
  const last = records.findLast(({ snapshot }) => snapshot.status === 'created')
  if (age(last?.snapshot ?? volume) < dayMs) return
  const changedAt = await agent.volumes.changedAt(volume.id)
  if (changedAt === undefined || (last?.changedAt ?? 0) >= changedAt) return
  const underWay = agent.store.snapshots
    .all()
    .filter(({ snapshot }) => snapshot.status === 'waiting' || snapshot.status === 'running')
  // The others have their turn in a minute.
  if (underWay.length >= dailySnapshotsAtOnceMax) return
  takeSnapshot(agent, volume.id, { id: newSnapshotId() })
}
