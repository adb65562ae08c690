import { Fault } from '#core/fault.ts'
import { limits } from '#core/limits.ts'
import type { MachineState } from '#spec/machine.ts'
import type { MachineRow } from '#spec/roster.ts'
import type { Agent } from './agent.ts'
import type { MachineRecord } from './store/index.ts'
import { startMachine } from './verbs.ts'

/** States from which a request may start a machine; one on its way down is started again once it is there. */
const wakeable: readonly MachineState[] = [
  'created',
  'stopping',
  'stopped',
  'suspending',
  'suspended',
]

const notStartable = (id: string, why: string) =>
  new Fault('precondition_failed', `[PM08] machine ${id} is not startable: ${why}`)

/**
 * Resolves with the machine's row once it may take traffic, starting it when it is asleep. Calls at once share one start.
 * @throws Fault `precondition_failed` (PM08) when a request may not start it, `timeout` (PM03) when it was not ready in time
 */
export function wakeMachine(agent: Agent, id: string): Promise<MachineRow> {
  const underWay = agent.wakes.get(id)
  if (underWay) return underWay
  const wake = wakeOnce(agent, id).finally(() => agent.wakes.delete(id))
  agent.wakes.set(id, wake)
  return wake
}

async function wakeOnce(agent: Agent, id: string): Promise<MachineRow> {
  const record = agent.store.machines.get(id)
  const row = readyRow(agent, id)
  if (row) return row
  requireStartable(record)
  if (wakeable.includes(record.life.state)) {
    await startMachine(agent, id, { source: 'proxy', nonce: agent.store.leases.find(id)?.nonce })
  }
  return untilReady(agent, id)
}

function requireStartable({ id, life, cordoned, config, destroyedAt }: MachineRecord): void {
  if (cordoned) throw notStartable(id, 'it is cordoned')
  if (config.schedule) throw notStartable(id, 'it runs on a schedule')
  if (config.standbys?.length) throw notStartable(id, 'it is a standby')
  const gone: readonly MachineState[] = ['failed', 'destroying', 'destroyed']
  if (destroyedAt !== null || gone.includes(life.state))
    throw notStartable(id, `it is ${life.state}`)
}

function readyRow(agent: Agent, id: string): MachineRow | undefined {
  const row = agent.rows.get(id)
  return row?.ready ? row : undefined
}

async function untilReady(agent: Agent, id: string): Promise<MachineRow> {
  const look = (): MachineRow | undefined => {
    const ready = readyRow(agent, id)
    if (ready) return ready
    const { life, lastError } = agent.store.machines.get(id)
    if (life.state === 'failed') {
      throw notStartable(id, `its start failed: ${lastError ?? 'see its log'}`)
    }
    if (life.state === 'suspended') {
      throw notStartable(id, `its resume failed: ${lastError ?? 'see its log'}`)
    }
    const resting: readonly MachineState[] = ['stopped', 'destroying', 'destroyed']
    if (resting.includes(life.state)) {
      throw notStartable(id, `it became ${life.state} before it was ready`)
    }
    return undefined
  }
  const row = await agent.changes.until(id, look, { timeoutMs: limits.holdMsMax })
  if (row) return row
  throw new Fault(
    'timeout',
    `[PM03] machine ${id} was started but was not ready in ${limits.holdMsMax / 1000} s; see its checks and its log`,
  )
}
