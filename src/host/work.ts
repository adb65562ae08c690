import { Fault, messageOf } from '#core/fault.ts'
import type { ExitRecord } from '#host/runtime/index.ts'
import { apply, commit, type Agent } from './agent.ts'
import { drain } from './drain.ts'
import { exitLine } from './exit-words.ts'
import { clearUp } from './hooks/index.ts'
import { launch } from './launch.ts'
import { workOf, type Halt, type Work } from './machine-life.ts'
import {
  newInterrupts,
  revivalDelayMs,
  slept,
  type Interrupts,
  type Outcome,
} from './piece-of-work.ts'
import { endRun, exitNews, superviseRun } from './run.ts'
import { capabilitiesOf } from './runtime-choice.ts'
import type { MachineRecord } from './store/index.ts'
import { told } from './told.ts'

/**
 * Does the work of the machine's present state, and of those that follow, until it rests. Every piece of work may be done
 * again after a crash at any point. Runs only inside the machine's queue.
 */
export async function carryOn(agent: Agent, id: string): Promise<void> {
  const interrupts = newInterrupts()
  agent.interrupts.set(id, interrupts)
  try {
    for (;;) {
      const record = agent.store.machines.get(id)
      const work = workOf(record.life.state)
      if (!work) {
        if (!autoDestroys(record)) return
        const events = [{ type: 'destroy', status: 'destroying', source: 'flyd' } as const]
        apply(agent, record, { type: 'destroy' }, { events })
        continue
      }
      const outcome = await works[work](agent, record, interrupts)
      // Undefined: the wait was interrupted, whoever did it decides what comes next.
      if (!outcome || agent.mode === 'closed') return
      const next = apply(agent, agent.store.machines.get(id), outcome.event, outcome.change)
      if (outcome.event.type === 'ran') superviseRun(agent, next, carryOn)
    }
  } finally {
    if (agent.interrupts.get(id) === interrupts) agent.interrupts.delete(id)
  }
}

/** MCH-77; a machine that never ran is only parked. */
function autoDestroys(record: MachineRecord): boolean {
  return (
    record.life.state === 'stopped' &&
    record.config.auto_destroy === true &&
    record.run > 0 &&
    !record.startWithHost
  )
}

const works: Record<
  Work,
  (agent: Agent, record: MachineRecord, on: Interrupts) => Promise<Outcome | undefined>
> = { launch, halt, suspend, remove }

async function halt(
  agent: Agent,
  given: MachineRecord,
  { soft, hard }: Interrupts,
): Promise<Outcome | undefined> {
  let record = given
  const { halt: how } = record.life
  const found = how ? await agent.driver.recover(record.id) : undefined
  if (how && found !== undefined) {
    if (found === 'running' && how.drain) {
      await drain(agent, record, { timeoutMs: how.timeoutMs, signal: hard.signal })
    }
    const exit = found === 'running' ? await bringDown(agent, record.id, how, hard.signal) : found
    if (agent.mode === 'closed') return undefined
    record = tellExit(agent, record.id, exit)
  }
  endRun(agent, record.id)
  try {
    await clearUp(agent, record)
  } catch (error) {
    return haltFailed(agent, record, error, AbortSignal.any([soft.signal, hard.signal]))
  }
  const waitMs = (record.life.startAt ?? 0) - agent.clock.now()
  if (waitMs > 0 && !(await slept(agent, waitMs, AbortSignal.any([soft.signal, hard.signal])))) {
    return undefined
  }
  const relaunch = record.life.state === 'updating' && record.life.after === 'start'
  const launchNews = { type: 'launch', status: 'created', source: 'flyd' } as const
  return { event: { type: 'halted' }, change: { events: relaunch ? [launchNews] : [] } }
}

/** What its restart policy wants to run is cleared up until that works: nobody else would start it again. */
async function haltFailed(
  agent: Agent,
  { id, life }: MachineRecord,
  error: unknown,
  signal: AbortSignal,
): Promise<Outcome | undefined> {
  const patch = { lastError: told(agent, error) }
  if (life.state !== 'restarting' || !life.revival) {
    return { event: { type: 'halt_failed' }, change: { patch } }
  }
  commit(agent, agent.store.machines.get(id), { patch })
  const retryInMs = revivalDelayMs(agent, life.revival.failures)
  agent.log.warn({ machine: id, retryInMs, error: patch.lastError }, 'a restart is postponed')
  if (!(await slept(agent, retryInMs, signal))) return undefined
  return { event: { type: 'halt_postponed' } }
}

/** Writes the end of a process down, once: afterwards the halt is only clearing up. */
function tellExit(agent: Agent, id: string, exit: ExitRecord): MachineRecord {
  // Read again: metadata or a cordon may have changed while the process was ending.
  const record = agent.store.machines.get(id)
  agent.spool.say(record.id, { provider: 'runner', message: exitLine(exit) })
  const restarting = record.life.after === 'start' && record.life.state === 'restarting'
  return commit(agent, record, {
    patch: { life: { ...record.life, halt: null } },
    events: [
      exitNews(exit, { requestedStop: true, restarting, restartCount: record.restarts.length }),
    ],
  })
}

const killSoonMs = 300
const killGraceMs = 10_000

/** MCH-35: the signal, the grace, then SIGKILL. Resolves with how it ended. */
async function bringDown(
  agent: Agent,
  id: string,
  how: Halt,
  hard: AbortSignal,
): Promise<ExitRecord> {
  const { driver } = agent
  const exited = driver.exited(id)
  exited.catch(() => {})
  const over = new AbortController()
  exited.then(() => over.abort()).catch(() => {})
  const within = (ms: number, signal?: AbortSignal) => {
    const ended = signal ? AbortSignal.any([signal, over.signal]) : over.signal
    return Promise.race([exited, slept(agent, ms, ended).then(() => undefined)])
  }
  if (how.timeoutMs > 0 && !hard.aborted) {
    const signalled = `Sending signal ${how.signal} to main child process`
    agent.spool.say(id, { provider: 'runner', message: signalled })
    await driver.signal(id, how.signal as NodeJS.Signals)
    const exit = await within(how.timeoutMs, hard)
    if (exit) return exit
  }
  await driver.signal(id, 'SIGKILL')
  const killedAtOnce = await within(killSoonMs)
  if (killedAtOnce) return killedAtOnce
  // A frozen machine dies only once it is thawed.
  const freezes = capabilitiesOf(agent, agent.store.machines.get(id)).suspend === 'freeze'
  if (freezes) await driver.resume(id).catch(() => {})
  const killed = await within(killGraceMs)
  if (killed) return killed
  // Not even SIGKILL: the driver takes everything down that belongs to it.
  await driver.destroy(id, { keepRoot: true }) // Whether it stays is decided when it is cleared up behind.
  const error = 'it did not end after SIGKILL and was removed'
  return { exitCode: 137, signal: 9, oomKilled: false, at: agent.clock.now(), error }
}

async function suspend(
  agent: Agent,
  record: MachineRecord,
  { stop, hard }: Interrupts,
): Promise<Outcome | undefined> {
  const timeoutMs = record.life.halt?.timeoutMs ?? 0
  const signal = AbortSignal.any([stop.signal, hard.signal])
  await drain(agent, record, { timeoutMs, signal })
  try {
    signal.throwIfAborted()
    await agent.driver.suspend(record.id, signal)
    endRun(agent, record.id)
    agent.spool.say(record.id, { provider: 'runner', message: 'Machine suspended' })
    const events = [{ type: 'suspend', status: 'suspended', source: 'flyd' } as const]
    return { event: { type: 'suspended' }, change: { events } }
  } catch (error) {
    // Whoever broke it off says how the machine ends, in the next operation.
    if (signal.aborted) return undefined
    // PRX-43: falls back to a stop.
    agent.log.warn({ machine: record.id, error: messageOf(error) }, 'could not suspend')
    const how = record.life.halt ?? { signal: 'SIGINT', timeoutMs: 5_000, drain: false }
    return { event: { type: 'suspend_failed', halt: how } }
  }
}

async function remove(agent: Agent, given: MachineRecord): Promise<Outcome> {
  let record = given
  const { id } = record
  const found = record.life.halt ? await agent.driver.recover(id) : undefined
  if (found !== undefined) {
    const at: Halt = { signal: 'SIGKILL', timeoutMs: 0, drain: false }
    const { signal } = new AbortController()
    const exit = found === 'running' ? await bringDown(agent, id, at, signal) : found
    record = tellExit(agent, id, exit)
  }
  endRun(agent, id)
  try {
    await clearUp(agent, record)
  } catch (error) {
    // Its name and number are free all the same; what is left is cleared up when the host starts again.
    agent.log.error({ machine: id, error: messageOf(error) }, 'something of a machine is left')
  }
  for (const mount of record.config.mounts ?? []) releaseVolume(agent, mount.volume, id)
  agent.store.leases.remove(id)
  const destroyedAt = agent.clock.now()
  const events = [{ type: 'destroy', status: 'destroyed', source: 'flyd' } as const]
  return { event: { type: 'removed' }, change: { patch: { destroyedAt, ready: false }, events } }
}

/** VOL-12: the volume stays when its machine goes. */
function releaseVolume(agent: Agent, volume: string | null | undefined, machine: string): void {
  const record = volume ? agent.store.volumes.find(volume) : undefined
  if (!record || record.volume.attached_machine_id !== machine) return
  const free = { attached_machine_id: null, attached_alloc_id: null }
  agent.store.volumes.save({ ...record, volume: { ...record.volume, ...free } })
}

/**
 * One operation on a machine: `begin` checks and writes down what shall be, and its answer is the caller's; the work
 * follows in the machine's queue. `interrupt` ends what the work before it waits for: the moment of a restart (`soft`),
 * a suspend too (`stop`), or anything at all (`hard`). Rejects when `begin` throws; then the work before it goes on.
 */
export async function operate<T>(
  agent: Agent,
  id: string,
  begin: () => T,
  interrupt?: keyof Interrupts,
): Promise<T> {
  if (agent.mode !== 'open') {
    throw new Fault('conflict', 'this host is being taken down; try again when it is back')
  }
  return new Promise((resolve, reject) => {
    const job = async () => {
      try {
        resolve(begin())
      } catch (error) {
        reject(error)
      }
      await carryOn(agent, id)
    }
    agent.queue.push(id, job).catch((error) => {
      agent.log.error({ machine: id, error: messageOf(error) }, 'the work on a machine failed')
    })
    const under = agent.interrupts.get(id)
    const reason = new Fault('conflict', `something else was asked of machine ${id} meanwhile`)
    if (interrupt === 'stop') under?.soft.abort(reason)
    if (interrupt) under?.[interrupt].abort(reason)
  })
}
