import { isFault, messageOf } from '#core/fault.ts'
import { releaseMetadataKeys } from '#spec/flatten.ts'
import type { MachineConfig } from '#spec/machine-config.ts'
import type { Machine } from '#spec/machine.ts'
import { desiredConfig, isWarm, judge } from './desired.ts'
import { requireListening } from './listen-check.ts'
import { becomeHealthy, eventsOf, showTrouble } from './health.ts'
import { leaseTtlSeconds, previousMetadataKey, type DeployJob, type DeployStep } from './job.ts'
import type { Leases } from './leases.ts'
import type { VolumePicker } from './volumes.ts'
import type { DeployWorld } from './world.ts'

/** What every step of one deploy works with. */
export interface DeployRun {
  world: DeployWorld
  job: DeployJob
  step: DeployStep
  leases: Leases
  volumes: VolumePicker
  signal: AbortSignal
  /** Machines that this run started or restarted, for the look at their ports afterwards. */
  launched: Set<string>
}

/** Edges get this long to put a machine's new row into effect. */
const routedMs = 2_000

/**
 * Brings one machine to what the release wants, and comes back when traffic may flow to it again. `place` is how the
 * progress counts it, such as `[1/3]`.
 */
export async function bringUp(
  run: DeployRun,
  id: string,
  group: string,
  place: string,
): Promise<void> {
  const { world, job, step } = run
  // Read again right before: the proxy may have started or stopped it since the list was made.
  const machine = await world.getMachine(id)
  if (machine.state === 'destroyed') return
  const desired = desiredConfig(job, step.mode, group, machine)
  const verdict = judge(job, step.mode, machine, desired)
  const name = `${place} Machine ${id} [${group}]`
  // One that is right and lies there failed is started again: that is what a second try is for.
  const down = isWarm(machine) && (machine.state === 'failed' || machine.state === 'stopped')
  if (verdict === 'same' && !down) return confirm(run, machine, desired, name)
  if (verdict === 'replace') return replace(run, machine, group, name)
  try {
    await updateInPlace(run, machine, desired, name)
  } catch (error) {
    // MCH-3: its host has no room for the new shape; without a volume it can live elsewhere.
    if (!isFault(error, 'insufficient_capacity') || machine.config.mounts?.length) throw error
    await world.say('warn', `${name}: ${messageOf(error)}; replacing it`, id)
    await replace(run, machine, group, name)
  }
}

/** A machine that is right already: only the words about the release change, and nothing is restarted. */
async function confirm(
  run: DeployRun,
  machine: Machine,
  desired: MachineConfig,
  name: string,
): Promise<void> {
  for (const key of releaseMetadataKeys) {
    const value = desired.metadata?.[key]
    if (value === undefined || machine.config.metadata?.[key] === value) continue
    await run.world.setMetadata(machine.id, { key, value }, run.leases.nonce(machine.id))
  }
  if (isWarm(machine) && run.job.strategy === 'rolling') {
    const settled = machine.state === 'started' && !run.job.resumed
    await healthy(run, { id: machine.id, seen: eventsOf(machine), settled }, name)
  }
  await run.world.say('info', `${name} is up to date`, machine.id)
}

async function updateInPlace(
  run: DeployRun,
  machine: Machine,
  desired: MachineConfig,
  name: string,
): Promise<void> {
  const { world, leases, job } = run
  const launch = isWarm(machine)
  await world.say('info', `${name} updating`, machine.id)
  const since = world.clock.now()
  const updated = await world.updateMachine(
    machine.id,
    { config: desired, ...(launch ? {} : { skip_launch: true }) },
    leases.nonce(machine.id),
  )
  if (launch) {
    run.launched.add(machine.id)
    if (job.strategy === 'rolling') {
      const { instance_id: instanceId } = updated
      await healthy(run, { id: machine.id, instanceId, seen: eventsOf(machine), since }, name)
      await routed(run, updated, name)
    }
  }
  await world.say('info', `${name} update finished: success`, machine.id)
}

/** Waits until the machine is well; what is wrong with it is shown before the failure goes on. */
async function healthy(
  run: DeployRun,
  watched: Parameters<typeof becomeHealthy>[2],
  name: string,
): Promise<void> {
  try {
    const machine = await becomeHealthy(run.world, run.job, watched, run.signal)
    if (!watched.settled && machine.state === 'started') await requireListening(run, machine)
  } catch (error) {
    if (!run.signal.aborted) {
      await run.world.say('warn', `${name} is not well: ${messageOf(error)}`, watched.id)
      await showTrouble(run.world, watched)
    }
    throw error
  }
}

/** The next machine is touched only when every edge sends traffic to this one again. */
async function routed(run: DeployRun, machine: Machine, name: string): Promise<void> {
  if (!machine.config.services?.length) return
  let done = false
  try {
    done = await run.world.routed(machine.id, routedMs)
  } catch (error) {
    if (!isFault(error)) throw error
  }
  if (!done) {
    await run.world.say('warn', `${name}: not every edge has confirmed its route yet`, machine.id)
  }
}

/** DEP-5: another machine with the new config, and then the old one goes. The new one names it, so that a second try finds it. */
async function replace(
  run: DeployRun,
  machine: Machine,
  group: string,
  name: string,
): Promise<void> {
  const { world } = run
  const machines = await world.listMachines()
  const before = machines.find(
    (one) => one.config.metadata?.[previousMetadataKey] === machine.id && one.id !== machine.id,
  )
  await world.say('info', `${name} is replaced by a new machine`, machine.id)
  if (!before) {
    const metadata = { ...machine.config.metadata, [previousMetadataKey]: machine.id }
    const { mounts: _mounts, ...config } = machine.config
    await launchNew(run, group, {
      region: machine.region,
      launch: isWarm(machine),
      like: { ...machine, config: { ...config, metadata } },
    })
  }
  await world.destroyMachine(machine.id, run.leases.nonce(machine.id))
  run.leases.forget(machine.id)
}

/** Makes one machine of the group and, unless it is to stay down, waits until it is well and routed. */
export async function launchNew(
  run: DeployRun,
  group: string,
  options: { region: string; launch: boolean; like?: Machine; standbyFor?: string },
): Promise<Machine> {
  const { world, job, step } = run
  const desired = desiredConfig(job, step.mode, group, options.like)
  const filled = await run.volumes.fill(desired, group, options.region)
  const { standbyFor } = options
  const config: MachineConfig = standbyFor
    ? { ...filled, standbys: [standbyFor], env: { ...filled.env, FLY_STANDBY_FOR: standbyFor } }
    : filled
  const machine = await world.createMachine({
    region: options.region,
    config,
    lease_ttl: leaseTtlSeconds,
    ...(options.launch && !standbyFor ? {} : { skip_launch: true }),
  })
  run.leases.adopt(machine.id, machine.nonce)
  const name = `Machine ${machine.id} [${group}]`
  await world.say(
    'info',
    `${name} created in ${machine.region}${standbyFor ? `, standing by for ${standbyFor}` : ''}`,
    machine.id,
  )
  if (!options.launch || standbyFor) return machine
  run.launched.add(machine.id)
  if (job.strategy === 'rolling') {
    await healthy(run, { id: machine.id, seen: new Set() }, name)
    await routed(run, machine, name)
  }
  await world.say('info', `${name} is started`, machine.id)
  return machine
}
