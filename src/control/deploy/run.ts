import { isFault, messageOf } from '#core/fault.ts'
import type { Machine } from '#spec/machine.ts'
import {
  isServing,
  isWarm,
  jobGroups,
  managedGroup,
  newGroupSize,
  unavailableMax,
} from './desired.ts'
import type { DeployJob, DeployStep } from './job.ts'
import { Leases } from './leases.ts'
import { warnOfDeafPorts } from './listen-check.ts'
import { bringUp, launchNew, type DeployRun } from './machines.ts'
import { pool } from './pool.ts'
import { runReleaseCommand } from './release-command.ts'
import { VolumePicker } from './volumes.ts'
import type { DeployWorld } from './world.ts'

/** Machines that do not run are updated so many at a time. DEP-6. */
const coldAtOnce = 30
/** Calls in flight of the immediate strategy. §7.3. */
const immediateAtOnce = 8
/** A dead process's leases are gone by then. */
const deadLeaseMs = 20_000

/**
 * DEP-1: brings an app to what a release wants. May be run again after it died at any point: what is done is seen from
 * the machines and from `step`, and the rest is done. Throws when the release has failed; what was changed until then
 * stays (DEP-24), and the machines not yet touched go on serving.
 */
export async function runDeploy(
  world: DeployWorld,
  job: DeployJob,
  begun: DeployStep,
  signal: AbortSignal,
): Promise<void> {
  let step = begun
  if (step.releaseCommand === 'todo') step = await runReleaseCommand(world, job, step, signal)
  const leases = new Leases(world)
  const volumes = new VolumePicker(world, job)
  try {
    const machines = (await world.listMachines()).filter((machine) => managedGroup(machine))
    const reachable = machines.filter((machine) => machine.host_status === 'ok')
    await warnOfSilent(world, machines)
    if (!step.create) {
      step = { ...step, create: decideNew(job, step, machines) }
      await world.saveStep(step)
    }
    const ids = reachable.map((machine) => machine.id)
    await leases.take(ids, { waitMs: job.resumed ? deadLeaseMs : 0, signal })
    const run: DeployRun = { world, job, step, leases, volumes, signal, launched: new Set() }
    const kept = await destroyRemoved(run, reachable)
    await createNew(run, kept)
    await updateExisting(run, kept)
    await warnOfDeafPorts(run)
  } finally {
    await leases.releaseAll()
  }
}

/** LIM-10: a machine whose host is silent keeps what it runs. */
async function warnOfSilent(world: DeployWorld, machines: readonly Machine[]): Promise<void> {
  for (const { id, host_status } of machines) {
    if (host_status === 'ok') continue
    await world.say(
      'warn',
      `Machine ${id} is left as it is: its host does not answer. Deploy again when the host is back`,
      id,
    )
  }
}

/** DEP-3: new groups get their machines, and so does every group of an app that was never deployed to the end. */
function decideNew(
  job: DeployJob,
  step: DeployStep,
  machines: readonly Machine[],
): NonNullable<DeployStep['create']> {
  if (step.mode === 'secrets') return {}
  const present = new Set(machines.map(managedGroup))
  return Object.fromEntries(
    jobGroups(job)
      .filter((group) => step.firstDeploy || !present.has(group))
      .map((group) => [group, newGroupSize(job, group)]),
  )
}

/** TOML-62. Gives back the machines that stay. */
async function destroyRemoved(run: DeployRun, machines: readonly Machine[]): Promise<Machine[]> {
  if (run.step.mode === 'secrets') return [...machines]
  const groups = jobGroups(run.job)
  const removed = machines.filter((machine) => !groups.includes(managedGroup(machine) ?? ''))
  await pool(removed, immediateAtOnce, async (machine) => {
    run.signal.throwIfAborted()
    await run.world.say(
      'info',
      `Machine ${machine.id} is destroyed: its process group "${managedGroup(machine)}" is no longer there`,
      machine.id,
    )
    await run.world.destroyMachine(machine.id, run.leases.nonce(machine.id))
    run.leases.forget(machine.id)
  })
  return machines.filter((machine) => !removed.includes(machine))
}

async function createNew(run: DeployRun, machines: readonly Machine[]): Promise<void> {
  await pool(Object.entries(run.step.create ?? {}), 16, async ([group, wanted]) => {
    const mine = machines.filter((machine) => managedGroup(machine) === group)
    const standing = mine.filter((machine) => machine.config.standbys?.length)
    const missing = wanted.machines - (mine.length - standing.length)
    const { region } = run.job
    let first = mine.find((machine) => !machine.config.standbys?.length)
    for (let index = 0; index < missing; index++) {
      run.signal.throwIfAborted()
      const made = await launchNew(run, group, { region, launch: true })
      first ??= made
    }
    if (wanted.standby && standing.length === 0 && first) {
      await launchNew(run, group, { region, launch: false, standbyFor: first.id })
    }
  })
}

/** Groups side by side; in each one, one machine first and then a few at a time, those that do not run last. */
async function updateExisting(run: DeployRun, machines: readonly Machine[]): Promise<void> {
  const groups = Map.groupBy(machines, (machine) => managedGroup(machine) ?? '')
  await pool([...groups], 16, async ([group, mine]) => {
    // Those that serve nobody come first: mending them takes nothing away.
    const rank = (machine: Machine) => (isServing(machine) ? 1 : 0)
    const sorted = mine.toSorted((a, b) => rank(a) - rank(b) || (a.id < b.id ? -1 : 1))
    const warm = sorted.filter(isWarm)
    const cold = sorted.filter((machine) => !isWarm(machine))
    let begun = 0
    const update = async (machine: Machine, index: number) => {
      run.signal.throwIfAborted()
      begun++
      const place = `[${index + 1}/${mine.length}]`
      try {
        await bringUp(run, machine.id, group, place)
      } catch (error) {
        if (!isFault(error, 'not_found')) throw error
        await run.world.say('warn', `${place} ${messageOf(error)}; it is left out`, machine.id)
      }
    }
    const atOnce = unavailableMax(run.job, warm.length)
    try {
      if (run.job.strategy === 'immediate') return await pool(sorted, immediateAtOnce, update)
      await pool(warm.slice(0, 1), 1, update)
      await pool(warm.slice(1), atOnce, (machine, index) => update(machine, index + 1))
      await pool(cold, coldAtOnce, (machine, index) => update(machine, index + warm.length))
    } catch (error) {
      const left = mine.length - begun
      if (left > 0 && !run.signal.aborted) {
        await run.world.say(
          'warn',
          `${left} of ${mine.length} machines [${group}] were not touched and go on as they were`,
        )
      }
      throw error
    }
  })
}
