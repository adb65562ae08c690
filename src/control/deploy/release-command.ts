import { Fault, isFault } from '#core/fault.ts'
import { formatGoDuration } from '#core/units.ts'
import { defaultGroup, releaseCommandConfig, releaseGroup } from '#spec/flatten.ts'
import { presets } from '#spec/guest-size.ts'
import { guestOfCompute } from '#spec/guest-of-compute.ts'
import type { Guest } from '#spec/machine-config.ts'
import type { ExitEvent, Machine } from '#spec/machine.ts'
import { managedGroup } from './desired.ts'
import type { DeployJob, DeployStep } from './job.ts'
import type { DeployWorld } from './world.ts'

/**
 * DEP-10…14: runs the release command in a machine of its own before any app machine changes. The machine is recorded
 * before it is started, so that a deploy taken up again waits for the run that there was instead of making a second one.
 * Throws when the command fails or takes too long.
 */
export async function runReleaseCommand(
  world: DeployWorld,
  job: DeployJob,
  step: DeployStep,
  signal: AbortSignal,
): Promise<DeployStep> {
  const machine = await releaseMachine(world, job, step)
  if (!machine) return { ...step, releaseCommand: 'done' }
  const recorded: DeployStep = { ...step, releaseMachine: machine.id }
  if (step.releaseMachine !== machine.id) await world.saveStep(recorded)
  const wasStarted = machine.events.some((event) => event.type === 'start')
  const ended = machine.state === 'destroyed' || machine.state === 'failed'
  const command = job.config.deploy?.release_command
  const words = wasStarted ? 'Waiting for the release_command that runs' : 'Running release_command'
  await world.say('info', `${words}: ${command}`, machine.id)
  if (!wasStarted && !ended) await world.startMachine(machine.id)
  const exit = await runToEnd(world, job, machine.id, signal)
  await world.destroyMachine(machine.id)
  if (exit.exit_code !== 0) {
    throw new Fault(
      'precondition_failed',
      `the release command exited with non-zero status of ${exit.exit_code}; no machine of the app was changed. Its output is above: mend it and deploy again`,
    )
  }
  const done: DeployStep = { ...recorded, releaseCommand: 'done' }
  await world.saveStep(done)
  await world.say('info', 'The release command is done', machine.id)
  return done
}

/** The machine recorded earlier, or a new one that is not started; what others left over is destroyed. */
async function releaseMachine(
  world: DeployWorld,
  job: DeployJob,
  step: DeployStep,
): Promise<Machine | undefined> {
  const config = releaseCommandConfig(job.config, {
    image: job.image.ref,
    releaseId: job.releaseId,
    releaseVersion: job.releaseVersion,
    hangarVersion: job.hangarVersion,
  })
  if (!config) return undefined
  if (step.releaseMachine !== undefined) return world.getMachine(step.releaseMachine)
  const machines = await world.listMachines()
  for (const old of machines) {
    if (old.config.metadata?.['fly_process_group'] === releaseGroup) {
      await world.destroyMachine(old.id)
    }
  }
  const guest = config.guest ?? guestFor(job, machines)
  return world.createMachine({
    region: job.region,
    config: { ...config, guest },
    skip_launch: true,
  })
}

/** DEP-14. */
function guestFor(job: DeployJob, machines: Machine[]): Guest {
  const main = defaultGroup(job.config)
  const largest = machines
    .filter((machine) => managedGroup(machine) === main)
    .map((machine) => machine.config.guest)
    .filter((guest) => !!guest?.memory_mb)
    .toSorted((a, b) => (b?.memory_mb ?? 0) - (a?.memory_mb ?? 0))[0]
  const vm = job.config.vm?.[0]
  const fallback: Guest = { ...presets.get('shared-cpu-2x') }
  const chosen = largest ?? job.guest ?? (vm ? guestOfCompute(vm) : fallback)
  const { gpus: _gpus, gpu_kind: _kind, ...guest } = chosen
  return guest
}

async function runToEnd(
  world: DeployWorld,
  job: DeployJob,
  id: string,
  signal: AbortSignal,
): Promise<ExitEvent> {
  const deadline = world.clock.now() + job.releaseCommandTimeoutMs
  const shown = new AbortController()
  const output = new Output(world, id)
  const showing = output.follow(AbortSignal.any([shown.signal, signal]))
  try {
    for (;;) {
      signal.throwIfAborted()
      const machine = await world.getMachine(id)
      const event = machine.events.find((one) => one.type === 'exit')
      if (event?.request?.exit_event) {
        return event.request.exit_event
      }
      if (machine.state === 'failed' || machine.state === 'destroyed') {
        const error = machine.events.find((one) => one.request?.error)?.request?.error
        throw new Fault(
          'precondition_failed',
          `the release command could not be run${error ? `: ${error}` : ''}; no machine of the app was changed`,
        )
      }
      const leftMs = deadline - world.clock.now()
      if (leftMs <= 0) break
      await waitForEnd(world, id, Math.min(leftMs, 60_000), signal)
    }
  } finally {
    shown.abort()
    await showing
    if (!signal.aborted) await output.rest()
  }
  await world.destroyMachine(id)
  throw new Fault(
    'wait_timeout',
    `the release command did not end within ${formatGoDuration(job.releaseCommandTimeoutMs)} and was stopped; no machine of the app was changed. Give it longer with release_command_timeout in [deploy]`,
  )
}

async function waitForEnd(
  world: DeployWorld,
  id: string,
  timeoutMs: number,
  signal: AbortSignal,
): Promise<void> {
  try {
    const states = ['stopped', 'destroyed', 'failed'] as const
    await world.waitMachine(id, { states, timeoutMs: Math.max(1_000, timeoutMs) })
    // The state may be there a moment before the event that tells why.
    await world.clock.sleep(50, signal)
  } catch (error) {
    if (!isFault(error, 'wait_timeout') && !isFault(error, 'not_found')) throw error
  }
}

/** DEP-12: shows what the command writes while it runs, and at its end what was not seen by then. */
class Output {
  private shownUpTo = 0n
  private left = 2_000
  private readonly world: DeployWorld
  private readonly id: string

  constructor(world: DeployWorld, id: string) {
    this.world = world
    this.id = id
  }

  follow(signal: AbortSignal): Promise<void> {
    return this.show({ limit: 100, follow: true, signal })
  }

  rest(): Promise<void> {
    return this.show({ limit: 500, follow: false, signal: AbortSignal.timeout(5_000) })
  }

  private async show(how: { limit: number; follow: boolean; signal: AbortSignal }): Promise<void> {
    try {
      for await (const { ns, message } of this.world.logs(this.id, how)) {
        if (BigInt(ns) <= this.shownUpTo) continue
        if (this.left-- <= 0) return
        this.shownUpTo = BigInt(ns)
        await this.world.say('log', message, this.id)
      }
    } catch {
      // The command's outcome does not depend on whether its output could be shown.
    }
  }
}
