import { Fault } from '#core/fault.ts'
import type { Volume } from '#spec/volume.ts'
import type { Agent } from './agent.ts'
import type { VolumeRecord } from './store/index.ts'

/** VOL-3: volumes as the API shows them, with what their file systems say while they are mounted. */
async function presentVolumes(agent: Agent, records: readonly VolumeRecord[]): Promise<Volume[]> {
  const usage = await agent.volumes.usage(records.map(({ volume }) => volume.id))
  return records.map(({ volume }) => ({ ...volume, ...usage.get(volume.id) }))
}

/** Volumes of an app, named by its id or its name; all of the host without one. */
export function listVolumes(agent: Agent, app: string | undefined): Promise<Volume[]> {
  const records = agent.store.volumes.all()
  return presentVolumes(
    agent,
    records.filter((record) => app === undefined || isOfApp(record, app)),
  )
}

/** @throws Fault `not_found` */
export async function showVolume(agent: Agent, id: string): Promise<Volume> {
  const record = agent.store.volumes.get(id)
  const [volume] = await presentVolumes(agent, [record])
  return volume ?? record.volume
}

export const isOfApp = (record: { app: { id: string; name: string } }, app: string): boolean =>
  record.app.id === app || record.app.name === app

/** Writes a volume down and tells those who wait for it. */
export function saveVolume(agent: Agent, record: VolumeRecord): void {
  agent.store.volumes.save(record)
  agent.changes.notify(record.volume.id)
}

/** @throws Fault `precondition_failed` for a volume that is being filled or destroyed */
export function requireUsable({ volume, destroyAt }: VolumeRecord, done: string): void {
  if (destroyAt === null && ['created', 'extending'].includes(volume.state)) return
  const next =
    destroyAt === null
      ? 'try again when it is created'
      : 'make a new volume from one of its snapshots'
  throw new Fault(
    'precondition_failed',
    `volume ${volume.id} is ${volume.state} and cannot be ${done}; ${next}`,
  )
}
