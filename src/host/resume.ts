import type { Agent } from './agent.ts'
import { capabilitiesOf } from './runtime-choice.ts'
import type { MachineRecord } from './store/index.ts'
import { inBackground } from './volume-verbs.ts'
import { told } from './told.ts'

/**
 * Lets a suspended machine go on, thawed or out of its snapshot; may be done again when it runs already. Undefined when
 * what it had in memory is of no use: then it is started anew and keeps what it wrote to its root (MCH-42). Otherwise its
 * IPv4 address.
 * @throws what kept it from going on although its snapshot is still good
 */
export async function resumeMachine(
  agent: Agent,
  record: MachineRecord,
): Promise<string | undefined> {
  const { id, index, app, config } = record
  const begun = agent.clock.now()
  if (capabilitiesOf(agent, record).volumes === 'disk') {
    for (const { volume } of config.mounts ?? []) if (volume) await agent.volumes.attach(volume)
  }
  // A host that was down has taken its networks down too. Not beside the resume: what fails here costs no snapshot.
  const { ip4 } = await agent.net.attach({ id, network: app.network, index })
  try {
    await agent.driver.resume(id)
  } catch (error) {
    if (agent.mode === 'closed' || (await snapshotStands(agent, id))) throw error
    sayLost(agent, record, told(agent, error))
    return undefined
  }
  for (const { volume } of config.mounts ?? []) {
    // What an extension meanwhile left to be done; the upkeep does it again when it fails.
    if (volume) inBackground(agent, volume, () => agent.volumes.growOn(volume))
  }
  const message = `Machine resumed in ${agent.clock.now() - begun} ms`
  agent.spool.say(id, { provider: 'runner', message })
  return ip4
}

/** What cannot be asked for is not taken for gone. */
export async function snapshotStands({ driver }: Agent, id: string): Promise<boolean> {
  return driver.recover(id).then(
    (found) => found === 'running',
    () => true,
  )
}

/** The log and the operator learn that a machine starts anew. */
export function sayLost(agent: Agent, { id }: MachineRecord, why: string): void {
  agent.log.warn({ machine: id, error: why }, 'a machine could not be resumed')
  const message = `The machine could not be resumed and starts anew: ${why}`
  agent.spool.say(id, { provider: 'runner', level: 'warn', message })
}
