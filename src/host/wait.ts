import { Fault } from '#core/fault.ts'
import { limits } from '#core/limits.ts'
import { machineStates, settledStates } from '#spec/machine.ts'
import type { Agent } from './agent.ts'
import type { MachineRecord } from './store/index.ts'

/** MCH-50: what may be waited for; `settled` is any state of rest. */
export const waitStates = [...machineStates, 'settled'] as const
export type WaitState = (typeof waitStates)[number]

export interface WaitRequest {
  states: readonly WaitState[]
  timeoutSeconds: number
  instanceId?: string | undefined
  signal?: AbortSignal
}

function reached(record: MachineRecord, state: WaitState): boolean {
  const { life } = record
  if (state === 'settled') return settledStates.includes(life.state)
  // CONF-6: a machine that was created to rest counts as stopped.
  if (state === 'stopped' && life.state === 'created' && life.after === 'rest') return true
  return life.state === state
}

/** States from which a machine does not come to the wanted one without somebody asking for it. MCH-52. */
function isDeadEnd(wanted: WaitState, { life: { state }, lastError }: MachineRecord): boolean {
  if (wanted === 'settled' || wanted === 'destroyed') return false
  if (state === 'failed' || state === 'destroying' || state === 'destroyed') return true
  // It was to go on and could not: a start clears the error.
  if (wanted === 'started' && state === 'suspended' && lastError !== null) return true
  return wanted === 'suspended' && state === 'stopped'
}

/**
 * Resolves when one of the states is reached.
 * @throws Fault `wait_timeout` after the time (MCH-50), `bad_request` as soon as none can be reached any more (MCH-52),
 *   `not_found` for an unknown machine
 */
export async function waitFor(agent: Agent, id: string, request: WaitRequest): Promise<void> {
  const { states, instanceId } = request
  const names = states.join(' or ')
  const look = (): true | undefined => {
    const record = agent.store.machines.get(id)
    if (instanceId && instanceId !== record.instanceId) throw replaced(agent, record, request)
    if (states.some((state) => reached(record, state))) return true
    const { state } = record.life
    if (states.every((wanted) => isDeadEnd(wanted, record))) {
      const why = record.lastError ? `: ${record.lastError}` : ''
      throw new Fault(
        'bad_request',
        `machine failed to reach desired state, ${names}, currently ${state}${why}`,
      )
    }
    return undefined
  }
  const timeoutMs = Math.min(request.timeoutSeconds, limits.waitSecondsMax) * 1000
  const done = await agent.changes.until(id, look, { timeoutMs, signal: request.signal })
  if (!done) {
    const now = agent.store.machines.get(id).life.state
    throw new Fault(
      'wait_timeout',
      `machine ${id} did not become ${names} within ${timeoutMs / 1000} s; it is ${now}. Wait again, or look at its logs`,
    )
  }
}

function replaced(agent: Agent, record: MachineRecord, request: WaitRequest): Fault {
  const known = agent.store.history
    .versions(record.id)
    .some((version) => version.version === request.instanceId)
  return known
    ? new Fault(
        'bad_request',
        `machine failed to reach desired state, ${request.states.join(' or ')}, currently replaced`,
      )
    : new Fault('not_found', `machine ${record.id} has no version ${request.instanceId}`)
}
