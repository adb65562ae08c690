import { Fault, isFault, messageOf } from '#core/fault.ts'
import type {
  Machine,
  MachineEvent,
  MachineProcess,
  MachineState,
  MachineVersion,
} from '#spec/machine.ts'
import type { RoutedResult } from '#spec/host-api.ts'
import type { AppRecord } from '../apps/index.ts'
import type { ControlContext } from '../context.ts'
import { callHost, type HostCall, type HostRef } from '../hosts/index.ts'
import {
  findPlacement,
  markGone,
  placementsOf,
  remember,
  type MachinePlacement,
} from './placements.ts'

export interface MachineFilter {
  includeDeleted?: boolean
  region?: string
  state?: MachineState | readonly MachineState[]
  /** All of these pairs must be there. MCH-86. */
  metadata?: Record<string, string>
}

/** A list waits this long for a host before it shows what was last known. */
const listTimeoutMs = 5_000

/** Every machine of the app, oldest first. Never fails because of a host that does not answer. */
export async function listMachines(
  ctx: ControlContext,
  app: AppRecord,
  filter: MachineFilter = {},
): Promise<Machine[]> {
  const placements = await placementsOf(ctx, app, { includeGone: filter.includeDeleted ?? false })
  const byHost = Map.groupBy(placements, (placement) => placement.host_id)
  const answers = await Promise.all(
    [...byHost.values()].map((group) => machinesOfHost(ctx, app, group)),
  )
  const machines = new Map(answers.flat().map((machine) => [machine.id, machine]))
  return placements
    .map((placement) => machines.get(placement.machine_id))
    .filter((machine) => machine !== undefined)
    .filter((machine) => matches(machine, filter))
}

async function machinesOfHost(
  ctx: ControlContext,
  app: AppRecord,
  placements: readonly MachinePlacement[],
): Promise<Machine[]> {
  const living = placements.filter((placement) => placement.status === 'placed')
  const gone = placements.filter((placement) => placement.status === 'gone').map(lastKnown)
  const host = placements[0]
  if (!host || living.length === 0) return known(gone)
  let answer: Machine[]
  try {
    answer = await callHost<Machine[]>(ctx, host, {
      method: 'GET',
      path: '/v1/machines',
      query: { app: app.id },
      timeoutMs: listTimeoutMs,
    })
  } catch (error) {
    ctx.log.debug({ host: host.host_id, error: messageOf(error) }, 'host lists no machines')
    return known([...gone, ...living.map((placement) => unreachable(ctx, placement))])
  }
  const byId = new Map(answer.map((machine) => [machine.id, machine]))
  const shown: (Machine | undefined)[] = [...gone]
  for (const placement of living) {
    const machine = byId.get(placement.machine_id)
    if (machine) {
      await remember(ctx, machine)
      shown.push(withoutNonce(machine))
      continue
    }
    // It destroyed itself.
    await markGone(ctx, placement.machine_id)
    const last = lastKnown(placement)
    shown.push(last && { ...last, state: 'destroyed' })
  }
  return known(shown)
}

const known = (machines: (Machine | undefined)[]): Machine[] =>
  machines.filter((machine) => machine !== undefined)

/** Gotcha 3 of the client: a nonce in a read makes it believe that it holds the lease. */
export function withoutNonce(machine: Machine): Machine {
  const { nonce: _, ...rest } = machine
  return rest
}

const lastKnown = (placement: MachinePlacement): Machine | undefined =>
  placement.last_known ?? undefined

/**
 * MCH-81: as the host answered last, in the state it announced last. The config is in `incomplete_config` too, where clients
 * look for it.
 */
function unreachable(ctx: ControlContext, placement: MachinePlacement): Machine | undefined {
  const machine = lastKnown(placement)
  if (!machine) return undefined
  const state = ctx.hosts.machineRow(placement.machine_id)?.state ?? machine.state
  const shown = { ...machine, state, host_status: 'unreachable' as const }
  return Object.assign(shown, { incomplete_config: machine.config })
}

function matches(machine: Machine, filter: MachineFilter): boolean {
  if (!filter.includeDeleted && machine.state === 'destroyed') return false
  if (filter.region !== undefined && machine.region !== filter.region) return false
  const states = filter.state === undefined ? [] : [filter.state].flat()
  if (states.length > 0 && !states.includes(machine.state)) return false
  return Object.entries(filter.metadata ?? {}).every(
    ([key, value]) => machine.config.metadata?.[key] === value,
  )
}

export const machineNotFound = (app: AppRecord, id: string): Fault =>
  new Fault('not_found', `machine not found: app ${app.name} has no machine ${id}`)

/** Where a machine is. Fault `not_found` with the text that clients look for (MCH-3). */
export async function placementOf(
  ctx: ControlContext,
  app: AppRecord,
  id: string,
): Promise<MachinePlacement> {
  const placement = await findPlacement(ctx, app, id)
  if (!placement) throw machineNotFound(app, id)
  return placement
}

/** A machine now, or as last known when its host does not answer. Destroyed ones stay readable (MCH-37). */
export async function getMachine(
  ctx: ControlContext,
  app: AppRecord,
  id: string,
): Promise<Machine> {
  const placement = await placementOf(ctx, app, id)
  try {
    const machine = await callHost<Machine>(ctx, placement, {
      method: 'GET',
      path: `/v1/machines/${id}`,
      timeoutMs: listTimeoutMs,
    })
    await remember(ctx, machine)
    return withoutNonce(machine)
  } catch (error) {
    if (isFault(error, 'host_unreachable')) {
      const machine =
        placement.status === 'gone' ? lastKnown(placement) : unreachable(ctx, placement)
      if (machine) return machine
    }
    if (!isFault(error, 'not_found')) throw error
    if (placement.status === 'placed') await markGone(ctx, id)
    const machine = lastKnown(placement)
    if (!machine) throw machineNotFound(app, id)
    return { ...machine, state: 'destroyed' }
  }
}

/** One read of a machine's host. */
async function readMachine<T>(
  ctx: ControlContext,
  app: AppRecord,
  id: string,
  what: string,
  call: Partial<HostCall> = {},
): Promise<T> {
  const placement: HostRef = await placementOf(ctx, app, id)
  return callHost<T>(ctx, placement, { method: 'GET', path: `/v1/machines/${id}/${what}`, ...call })
}

/** Newest first. MCH-15. */
export const machineEvents = (
  ctx: ControlContext,
  app: AppRecord,
  id: string,
): Promise<MachineEvent[]> => readMachine(ctx, app, id, 'events')

export const machineVersions = (
  ctx: ControlContext,
  app: AppRecord,
  id: string,
): Promise<MachineVersion[]> => readMachine(ctx, app, id, 'versions')

export const machineProcesses = (
  ctx: ControlContext,
  app: AppRecord,
  id: string,
): Promise<MachineProcess[]> => readMachine(ctx, app, id, 'ps')

/** Resolves with `routed: true` once every live edge has the machine's present row, `false` after `timeoutMs`. */
export async function machineRouted(
  ctx: ControlContext,
  app: AppRecord,
  id: string,
  timeoutMs: number,
): Promise<RoutedResult> {
  return readMachine(ctx, app, id, 'routed', {
    query: { timeout_ms: String(timeoutMs) },
    timeoutMs: timeoutMs + 5_000,
  })
}
