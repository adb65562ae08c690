import { Fault, isFault } from '#core/fault.ts'
import { formatGoDuration } from '#core/units.ts'
import type { ExitEvent, Machine } from '#spec/machine.ts'
import type { DeployJob } from './job.ts'
import type { DeployWorld } from './world.ts'

/** A machine without checks has to run this long without an exit. DEP-7. */
const smokeMs = 1_000
/** After one crash it has to run this long. */
const smokeAfterCrashMs = 5_000

export interface Watched {
  id: string
  /** The version that has to come up; any when a machine is only looked at again. */
  instanceId?: string
  /** Events that were there before: what they tell is not about this version. */
  seen: ReadonlySet<string>
  /** When this version was begun, in milliseconds: older output says nothing about it. */
  since?: number
  /** It was up before, so that no look at its first moments is needed. */
  settled?: boolean
}

export const eventsOf = (machine: Machine | undefined): ReadonlySet<string> =>
  new Set(machine?.events.map((event) => event.id))

/**
 * Waits until the machine runs and its checks pass (CHK-7), or, without checks, until it has run for a moment. Throws a
 * Fault that says what is wrong with it: it failed, it exits, it crashes again and again, or its checks do not pass.
 */
export async function becomeHealthy(
  world: DeployWorld,
  job: DeployJob,
  watched: Watched,
  signal: AbortSignal,
): Promise<Machine> {
  const deadline = world.clock.now() + job.waitTimeoutMs
  await waitUntilUp(world, watched, deadline, signal)
  const startedAt = world.clock.now()
  let crashes = 0
  let crashedAt = startedAt
  for (let round = 0; ; round++) {
    signal.throwIfAborted()
    const machine = await world.getMachine(watched.id)
    const exits = exitsOf(machine, watched.seen)
    const bad = exits.filter((exit) => exit.exit_code !== 0 || exit.restarting)
    if (bad.length > crashes) {
      crashes = bad.length
      crashedAt = world.clock.now()
    }
    const trouble = troubleOf(machine, exits, crashes)
    if (trouble) throw new Fault('precondition_failed', trouble)
    const now = world.clock.now()
    const steadyMs = watched.settled ? 0 : smokeMs
    const quiet = crashes === 0 ? now - startedAt >= steadyMs : now - crashedAt >= smokeAfterCrashMs
    const finished = machine.state === 'stopped'
    if (
      finished ||
      (machine.state === 'started' && checksPass(machine) && (hasChecks(machine) || quiet))
    ) {
      return machine
    }
    if (now >= deadline) throw new Fault('wait_timeout', lateBecause(machine, job))
    await world.clock.sleep(round < 10 ? 100 : round < 40 ? 250 : 1_000, signal)
  }
}

async function waitUntilUp(
  world: DeployWorld,
  watched: Watched,
  deadline: number,
  signal: AbortSignal,
): Promise<void> {
  for (;;) {
    signal.throwIfAborted()
    const leftMs = deadline - world.clock.now()
    if (leftMs <= 0) return
    try {
      await world.waitMachine(watched.id, {
        states: ['started', 'stopped', 'failed', 'destroyed'],
        timeoutMs: Math.max(1_000, Math.min(60_000, leftMs)),
        ...(watched.instanceId === undefined ? {} : { instanceId: watched.instanceId }),
      })
      return
    } catch (error) {
      if (!isFault(error, 'wait_timeout')) throw error
    }
  }
}

const exitsOf = (machine: Machine, seen: ReadonlySet<string>): ExitEvent[] =>
  machine.events
    .filter((event) => event.type === 'exit' && !seen.has(event.id))
    .map((event) => event.request?.exit_event)
    .filter((exit) => exit !== undefined && !exit.requested_stop) as ExitEvent[]

/** Why the machine will not get well by waiting; undefined while it may. DEP-7. */
function troubleOf(machine: Machine, exits: ExitEvent[], crashes: number): string | undefined {
  const { id } = machine
  const last = exits[0]
  const how = last ? describeExit(last) : ''
  if (machine.state === 'failed') {
    const error = machine.events.find((event) => event.request?.error)?.request?.error
    return `machine ${id} could not be started${error ? `: ${error}` : ''}; see its log`
  }
  if (machine.state === 'destroyed' || machine.state === 'destroying') {
    return `machine ${id} was destroyed while it was being deployed`
  }
  if (machine.state === 'stopped' && last && last.exit_code !== 0) {
    return `machine ${id} ${how} and stopped; its command has to keep running, see its output`
  }
  if (machine.state === 'stopped' && last && machine.config.services?.length) {
    return `machine ${id} ${how} right after its start; the command of an app with services has to keep running`
  }
  if (crashes >= 2) {
    return `machine ${id} is crashing: its command ${how}, ${crashes} times since the update; see its output`
  }
  return undefined
}

function describeExit(exit: ExitEvent): string {
  if (exit.oom_killed) return 'ran out of memory and was killed'
  if (exit.error) return `could not run (${exit.error})`
  return exit.signal > 0
    ? `was ended by signal ${exit.signal}`
    : `exited with code ${exit.exit_code}`
}

/** CHK-7. */
const hasChecks = ({ config }: Machine): boolean =>
  Object.keys(config.checks ?? {}).length > 0 ||
  !!config.services?.some((service) => service.checks?.length)

const checksPass = (machine: Machine): boolean =>
  !hasChecks(machine) ||
  (machine.checks.length > 0 && machine.checks.every((check) => check.status === 'passing'))

function lateBecause(machine: Machine, job: DeployJob): string {
  const within = formatGoDuration(job.waitTimeoutMs)
  if (machine.state !== 'started') {
    return `machine ${machine.id} is ${machine.state} and did not start within ${within}`
  }
  const failing = machine.checks.filter((check) => check.status !== 'passing')
  const list = failing.map((check) => `${check.name} is ${check.status}: ${check.output.trim()}`)
  return `the checks of machine ${machine.id} did not pass within ${within}: ${list.join('; ') || 'no check has run'}`
}

/** What a person needs to find the fault: the output of its checks and its last log lines, as progress. */
export async function showTrouble(
  world: DeployWorld,
  { id, since }: Pick<Watched, 'id' | 'since'>,
): Promise<void> {
  try {
    const machine = await world.getMachine(id)
    for (const check of machine.checks) {
      if (check.status === 'passing') continue
      await world.say('log', `check ${check.name} ${check.status}: ${check.output.trim()}`, id)
    }
    const options = { limit: 20, follow: false, signal: AbortSignal.timeout(5_000) }
    // The clocks of two machines differ a little.
    const after = BigInt(Math.max(0, (since ?? 0) - 1_000)) * 1_000_000n
    for await (const line of world.logs(id, options)) {
      if (BigInt(line.ns) > after) await world.say('log', line.message, id)
    }
  } catch {
    // The failure itself is told anyway; its details are a help that may be missing.
  }
}
