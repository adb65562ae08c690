import { Fault } from '#core/fault.ts'
import { limits } from '#core/limits.ts'
import type { MachineConfig } from '#spec/machine-config.ts'
import type { Agent } from './agent.ts'
import type { MachineRecord, VolumeRecord } from './store/index.ts'

/**
 * MCH-24, VOL-1: takes the named volume for the machine, in the transaction that writes the machine down. A volume that is
 * asked for by its name is chosen among the free ones.
 */
export function attachVolume(
  agent: Agent,
  machine: string,
  app: string,
  config: MachineConfig,
): MachineConfig {
  const [mount] = config.mounts ?? []
  if (!mount) return config
  if (!mount.volume && !mount.name) {
    throw new Fault('invalid', `the mount at ${mount.path} names no volume; give its id as volume`)
  }
  const found = agent.store.volumes
    .all()
    .find(
      ({ volume, app: owner, destroyAt }) =>
        owner.id === app &&
        destroyAt === null &&
        (mount.volume ? volume.id === mount.volume : volume.name === mount.name) &&
        (Boolean(mount.volume) || volume.attached_machine_id === null),
    )
  if (!found) {
    const what = mount.volume || `named ${mount.name}`
    throw new Fault('invalid', `there is no free volume ${what} of this app on this host`)
  }
  const { volume } = found
  if (volume.attached_machine_id !== null) throw attachedElsewhere(found)
  const attached = { attached_machine_id: machine, attached_alloc_id: machine }
  agent.store.volumes.save({ ...found, volume: { ...volume, ...attached } })
  return withVolume(config, volume)
}

/** MCH-32: the config of an update mounts the volume that its machine has. */
export function keepVolume(
  agent: Agent,
  { config: before }: MachineRecord,
  config: MachineConfig,
): MachineConfig {
  const [mount] = before.mounts ?? []
  if (!mount?.volume) return config
  const name = agent.store.volumes.find(mount.volume)?.volume.name
  return withVolume(config, { id: mount.volume, name })
}

/** The mount tells the volume's name: a client that copies the machine names the copy's volume after it (VOL-12). */
function withVolume(
  config: MachineConfig,
  { id, name }: { id: string; name: string | undefined },
): MachineConfig {
  const mounts = config.mounts?.map((mount) => ({
    ...mount,
    volume: id,
    ...(name === undefined ? {} : { name }),
  }))
  return mounts ? { ...config, mounts } : config
}

const attachedElsewhere = ({ volume }: VolumeRecord): Fault =>
  new Fault(
    'conflict',
    `volume ${volume.id} is attached to machine ${volume.attached_machine_id}; a volume has one machine`,
  )

/** @throws Fault when a machine may not use a volume: it is gone, or another's */
function requireAttached(agent: Agent, machine: string, id: string): VolumeRecord {
  const record = agent.store.volumes.find(id)
  if (!record || record.destroyAt !== null) {
    throw new Fault(
      'precondition_failed',
      `volume ${id} of machine ${machine} is gone; create a machine with another volume`,
    )
  }
  if (record.volume.attached_machine_id !== machine) throw attachedElsewhere(record)
  return record
}

/**
 * Resolves when the machine's volume can be mounted; waits for one that is being filled.
 * @throws Fault `precondition_failed` when that takes too long or will never be, `conflict` when it is another's
 */
export async function volumeReady(
  agent: Agent,
  { id: machine }: MachineRecord,
  want: { volume: string; signal: AbortSignal },
): Promise<void> {
  const { volume: id, signal } = want
  const look = (): true | undefined => {
    const { volume, hopeless } = requireAttached(agent, machine, id)
    if (volume.state === 'created' || volume.state === 'extending') return true
    if (!hopeless) return undefined
    throw new Fault('precondition_failed', `volume ${id} ${volume.error ?? 'cannot be filled'}`)
  }
  const ready = await agent.changes.until(id, look, { timeoutMs: limits.volumeWaitMsMax, signal })
  signal.throwIfAborted()
  if (ready) return
  const { volume } = requireAttached(agent, machine, id)
  throw new Fault(
    'precondition_failed',
    `volume ${id} is still ${volume.state} after ${limits.volumeWaitMsMax / 1000} s${volume.error ? `: it ${volume.error}` : ''}; start machine ${machine} again when the volume is created`,
  )
}
