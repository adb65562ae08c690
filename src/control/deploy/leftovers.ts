import { isFault, messageOf } from '#core/fault.ts'
import { ephemeralGroups } from '#spec/flatten.ts'
import type { Machine } from '#spec/machine.ts'
import type { Release } from '#spec/release.ts'
import type { AppRecord } from '../apps/index.ts'
import type { ControlContext } from '../context.ts'
import { destroyMachine, listMachines, machineAction, waitMachine } from '../machines/index.ts'
import { appendProgress } from '../store/release-progress.ts'
import { managedGroup } from './desired.ts'

/** What clients write on the machines that they make for a deploy. MCH-85. */
const tagKey = 'fly_bluegreen_deployment_tag'
const canaryKey = 'fly_canary'
const finishedTag = 'safe_to_destroy'

/** `made to go`: helpers and canaries; `colour`: the colour of a bluegreen release that lost. */
export type Which = 'all' | 'made to go' | 'colour'

export interface Leftover {
  machine: Machine
  why: string
}

/**
 * The machines that a client left when it died in the middle of this release, and that no second try of it would take
 * away. Pure. A machine is only named when what the client wrote on it proves what it was for:
 * - helpers that never ran: a release command's or a check's machine is made at rest and destroys itself when it has run;
 * - canaries, which no release keeps;
 * - of a bluegreen release one colour (DEP-20): the green ones as long as the blue ones serve untouched, as the client
 *   itself rolls back; the blue ones once the client has marked them for destruction, which it does when all green ones serve.
 */
export function leftoversOf(
  release: Pick<Release, 'id' | 'strategy' | 'version'>,
  all: readonly Machine[],
  which: Which = 'all',
): Leftover[] {
  const machines = all.filter((machine) => machine.state !== 'destroyed')
  const ofRelease = (machine: Machine) => metadata(machine, 'fly_release_id') === release.id
  const idle = machines.filter(
    (machine) =>
      ofRelease(machine) &&
      machine.config.auto_destroy === true &&
      ephemeralGroups.includes(metadata(machine, 'fly_process_group') ?? '') &&
      ['created', 'stopped', 'failed'].includes(machine.state),
  )
  const canaries = machines.filter(
    (machine) => ofRelease(machine) && metadata(machine, canaryKey) === 'true',
  )
  const madeToGo = [
    ...idle.map((machine) => ({ machine, why: 'it was made to run one command and never did' })),
    ...canaries.map((machine) => ({ machine, why: 'it was a canary' })),
  ]
  const colour = release.strategy === 'bluegreen' ? losingColour(release, machines) : []
  if (which === 'all') return [...madeToGo, ...colour]
  return which === 'colour' ? colour : madeToGo
}

function losingColour(release: Pick<Release, 'id'>, machines: readonly Machine[]): Leftover[] {
  const managed = machines.filter((machine) => managedGroup(machine) !== undefined)
  const greens = managed.filter(
    (machine) =>
      metadata(machine, 'fly_release_id') === release.id &&
      ![undefined, finishedTag].includes(metadata(machine, tagKey)),
  )
  if (greens.length === 0) return []
  const groups = new Set(greens.map(managedGroup))
  const blues = managed.filter(
    (machine) => !greens.includes(machine) && groups.has(managedGroup(machine)),
  )
  const finished = blues.filter((machine) => metadata(machine, tagKey) === finishedTag)
  if (finished.length > 0) {
    if (greens.some((machine) => machine.cordoned)) return []
    // As many green ones as blue: each blue one was replaced, also one that the client had not marked yet.
    const replaced = greens.length >= blues.length ? blues : finished
    return replaced.map((machine) => ({ machine, why: 'the new colour had taken its place' }))
  }
  const untouched =
    blues.length >= greens.length &&
    blues.every((machine) => !machine.cordoned) &&
    (blues.some(isUp) || !greens.some(isUp))
  if (!untouched) return []
  return greens.map((machine) => ({ machine, why: 'the old colour still serves' }))
}

const metadata = (machine: Machine, key: string): string | undefined =>
  machine.config.metadata?.[key]
const isUp = (machine: Machine): boolean => machine.state === 'started'

/** A machine of the old colour gets this long for what it has in flight. */
const stopWaitSeconds = 60

/**
 * Destroys what a dead client left of its release. May be done again at any point. Resolves with how many were destroyed;
 * undefined when something could not be known or done now, such as while a host is silent.
 */
export async function clearLeftovers(
  ctx: ControlContext,
  app: AppRecord,
  release: Pick<Release, 'id' | 'strategy' | 'version'>,
  which: Which,
): Promise<number | undefined> {
  const machines = await listMachines(ctx, app)
  if (machines.some((machine) => machine.host_status !== 'ok')) return undefined
  const leftovers = leftoversOf(release, machines, which)
  for (const { machine, why } of leftovers) {
    try {
      if (isUp(machine)) {
        // Out of the routes and through its grace, as the client would have done it.
        await machineAction(ctx, app, machine.id, 'stop', { source: 'flyd' })
        await waitMachine(ctx, app, machine.id, {
          states: ['stopped', 'destroyed'],
          timeoutSeconds: stopWaitSeconds,
          signal: ctx.stopping,
        }).catch((error: unknown) => {
          if (!isFault(error)) throw error
        })
      }
      await destroyMachine(ctx, app, machine.id, { kill: true, source: 'flyd' })
    } catch (error) {
      if (isFault(error, 'not_found')) continue
      ctx.log.info({ machine: machine.id, error: messageOf(error) }, 'a leftover is not gone yet')
      return undefined
    }
    const message = `Machine ${machine.id} is destroyed: release v${release.version} was cut off and ${why}`
    await appendProgress(ctx, release.id, { level: 'warn', message, machine: machine.id })
  }
  return leftovers.length
}
