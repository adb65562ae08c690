import { Fault } from '#core/fault.ts'
import { limits } from '#core/limits.ts'
import { resolveGuest } from '#spec/guest-size.ts'
import type { MachineState } from '#spec/machine.ts'
import { stopSignals } from '#spec/machine-config.ts'
import { runtimeMetadataKey } from '#spec/runtime.ts'
import { apply, commit, refuseToMake, type Agent, type NewEvent, type Source } from './agent.ts'
import { checkCapacity } from './capacity.ts'
import { checkRuntimeWish, haltFor } from './config-rules.ts'
import { requireSameRuntime } from './kept-root.ts'
import { requireLease } from './leases.ts'
import { workOf, type Halt } from './machine-life.ts'
import { capabilitiesOf, restsOnDisk, suspendHindrance } from './runtime-choice.ts'
import type { MachineRecord } from './store/index.ts'
import { operate } from './work.ts'

/** Who asks, and the lease nonce that they showed. */
export interface Caller {
  source: Source
  nonce?: string | undefined
}

const news = (type: NewEvent['type'], status: string, by: Caller): NewEvent[] => [
  { type, status, source: by.source },
]

/** Checks the lease and that the machine exists at once, then begins in the machine's queue. */
async function change<T>(
  agent: Agent,
  id: string,
  by: Caller,
  begin: (record: MachineRecord) => T,
  interrupt: 'soft' | 'stop' = 'soft',
): Promise<T> {
  present(agent, id)
  requireLease(agent, id, by.nonce)
  const job = () => {
    requireLease(agent, id, by.nonce)
    return begin(present(agent, id))
  }
  return operate(agent, id, job, interrupt)
}

/** @throws Fault `not_found` for a machine that is destroyed too */
function present(agent: Agent, id: string): MachineRecord {
  const record = agent.store.machines.get(id)
  if (record.destroyedAt !== null)
    throw new Fault('not_found', `machine not found: ${id} is destroyed`)
  return record
}

/** MCH-34. Starting a started machine is no error. */
export async function startMachine(
  agent: Agent,
  id: string,
  by: Caller,
): Promise<{ previous_state: MachineState; migrated: false; new_host: '' }> {
  return change(agent, id, by, (record) => {
    const previous_state = record.life.state
    if (previous_state !== 'started' && previous_state !== 'restarting') {
      // A frozen machine never gave its memory back.
      const holdsMemory = previous_state === 'suspended' && !restsOnDisk(agent, record)
      if (!holdsMemory) checkCapacity(agent, resolveGuest(record.config))
      const patch = { restarts: [], startWithHost: false, lastError: null }
      const events = news('start', 'starting', by)
      // A request waits for this start: what a power loss would undo is not worth a flush of the disk.
      const durability = by.source === 'proxy' ? 'crash' : 'power'
      apply(agent, record, { type: 'start' }, { patch, events, durability })
    } else if (previous_state === 'restarting') startNow(agent, record)
    return { previous_state, migrated: false, new_host: '' }
  })
}

function startNow(agent: Agent, record: MachineRecord): void {
  commit(agent, record, { patch: { life: { ...record.life, startAt: null } } })
}

/**
 * An idle machine is not taken away from under a command that somebody waits for: it has a deadline, and the edge asks again.
 * Whoever says stop or suspend themselves is not asked whether they mean it.
 */
function refuseWhileInUse(agent: Agent, id: string, by: Caller): void {
  if (by.source !== 'proxy' || !agent.execs.any(id)) return
  throw new Fault(
    'conflict',
    `machine ${id} is idle but runs a command for somebody; it is left running until that has ended`,
  )
}

export interface StopRequest {
  signal?: string | null | undefined
  timeout?: string | number | null | undefined
}

function checkSignal(signal: string | null | undefined): void {
  if (signal && !(stopSignals as readonly string[]).includes(signal)) {
    throw new Fault('invalid', `unknown signal ${signal}; use one of ${stopSignals.join(', ')}`)
  }
}

/** The halt of a machine that is frozen discards what it has in memory (MCH-35). */
function haltOf(record: MachineRecord, request: StopRequest = {}): Halt {
  if (record.life.state === 'suspended') return { signal: 'SIGKILL', timeoutMs: 0, drain: false }
  return haltFor(record.config, request)
}

/** MCH-35, MCH-38. Resolves once the stop is written down; `wait` tells when it is done. */
export async function stopMachine(
  agent: Agent,
  id: string,
  by: Caller,
  request: StopRequest = {},
): Promise<void> {
  checkSignal(request.signal)
  const begin = (record: MachineRecord) => {
    if (record.life.state === 'stopped') return
    refuseWhileInUse(agent, id, by)
    const event = { type: 'stop', halt: haltOf(record, request) } as const
    const patch = { restarts: [], startWithHost: false }
    apply(agent, record, event, { patch, events: news('stop', 'stopping', by) })
  }
  await change(agent, id, by, begin, 'stop')
}

/** MCH-36: stop and start of the same version; a machine at rest is started. */
export async function restartMachine(
  agent: Agent,
  id: string,
  by: Caller,
  request: StopRequest & { forceStop?: boolean } = {},
): Promise<void> {
  checkSignal(request.signal)
  await change(agent, id, by, (record) => {
    const events = news('restart', 'restarting', by)
    if (record.life.state === 'restarting') startNow(agent, record)
    else if (record.life.state === 'started') {
      const halt = haltOf(record, request)
      const forced: Halt = request.forceStop
        ? { signal: 'SIGKILL', timeoutMs: 0, drain: false }
        : halt
      apply(agent, record, { type: 'restart', halt: forced }, { patch: { restarts: [] }, events })
    } else apply(agent, record, { type: 'start' }, { patch: { restarts: [] }, events })
  })
}

/** MCH-40. @throws Fault `precondition_failed` for a machine that cannot be suspended, with the reason */
export async function suspendMachine(agent: Agent, id: string, by: Caller): Promise<void> {
  await change(agent, id, by, (record) => {
    if (record.life.state === 'suspended') return
    refuseWhileInUse(agent, id, by)
    const { config } = record
    const why = suspendHindrance(config, capabilitiesOf(agent, record))
    if (why) throw new Fault('precondition_failed', `machine ${id} cannot be suspended: ${why}`)
    const life = { ...record.life, halt: haltFor(config) }
    const events = news('suspend', 'suspending', by)
    apply(agent, { ...record, life }, { type: 'suspend' }, { events })
  })
}

/** MCH-37. @throws Fault `precondition_failed` for one that runs, without `kill` */
export async function destroyMachine(
  agent: Agent,
  id: string,
  by: Caller,
  kill: boolean,
): Promise<void> {
  if (!agent.store.machines.find(id)) refuseToMake(agent, id)
  const { life } = present(agent, id)
  requireLease(agent, id, by.nonce)
  const atRest = ['created', 'stopped', 'suspended', 'failed'].includes(life.state)
  if (!kill && !atRest && life.state !== 'destroying') {
    throw new Fault(
      'precondition_failed',
      `machine ${id} is ${life.state} and cannot be destroyed; stop it first, or force its destruction`,
    )
  }
  const begin = () => {
    const record = agent.store.machines.get(id)
    if (record.destroyedAt !== null || record.life.state === 'destroying') return
    requireLease(agent, id, by.nonce)
    const events = news('destroy', 'destroying', by)
    apply(agent, record, { type: kill ? 'kill' : 'destroy' }, { events })
  }
  await operate(agent, id, begin, kill ? 'hard' : 'soft')
}

/** MCH-80: out of or back into traffic; what runs keeps running. */
export function cordonMachine(agent: Agent, id: string, by: Caller, cordoned: boolean): void {
  const record = present(agent, id)
  requireLease(agent, id, by.nonce)
  if (record.cordoned === cordoned) return
  const type = cordoned ? 'cordon' : 'uncordon'
  commit(agent, record, { patch: { cordoned }, events: news(type, record.life.state, by) })
}

/** @throws Fault `precondition_failed` when the machine does not run, with what to do */
export function requireRunning(agent: Agent, id: string, verb: string): void {
  const { state, after } = present(agent, id).life
  if (state === 'started') return
  // One on its way up needs nobody to start it.
  const comesUp = state === 'starting' || (after === 'start' && workOf(state) === 'halt')
  const remedy = comesUp ? 'wait until it is started' : 'start it first'
  throw new Fault(
    'precondition_failed',
    `cannot ${verb} machine ${id} while it is ${state}; ${remedy}`,
  )
}

export async function signalMachine(
  agent: Agent,
  id: string,
  by: Caller,
  signal: string,
): Promise<void> {
  checkSignal(signal)
  requireRunning(agent, id, 'signal')
  requireLease(agent, id, by.nonce)
  await agent.driver.signal(id, signal as NodeJS.Signals)
}

/**
 * MCH-86: no new version and no restart; undefined deletes. A lease does not stop it: its own holder tags machines in the
 * middle of a deploy without showing the nonce.
 */
export function setMetadata(
  agent: Agent,
  id: string,
  entry: { key: string; value: string | undefined },
): void {
  const record = present(agent, id)
  if (entry.key === '__proto__') throw new Fault('invalid', 'a metadata key cannot be __proto__')
  if (entry.key === runtimeMetadataKey) checkRuntimeWish(entry.value)
  const metadata: Record<string, string> = { ...record.config.metadata }
  if (entry.value === undefined) delete metadata[entry.key]
  else metadata[entry.key] = entry.value
  if (Object.keys(metadata).length > limits.metadataKeysMax) {
    throw new Fault(
      'limit_reached',
      `a machine has at most ${limits.metadataKeysMax} metadata keys`,
    )
  }
  const config = { ...record.config, metadata }
  if (entry.key === runtimeMetadataKey) requireSameRuntime({ ...record, config })
  commit(agent, record, { patch: { config } })
}
