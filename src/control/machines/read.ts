import { Fault, isFault } from '#core/fault.ts'
import type { Machine, MachineEvent, MachineProcess, MachineVersion } from '#spec/machine.ts'
import type { RoutedResult } from '#spec/host-api.ts'
import type { AppRecord } from '../apps/index.ts'
import type { ControlContext } from '../context.ts'
import { callHost, type HostCall, type HostRef } from '../hosts/index.ts'
import { findPlacement, markGone, remember, type MachinePlacement } from './placements.ts'

/** A read waits this long for a host before it shows what was last known. */
const readTimeoutMs = 5_000

/** Gotcha 3 of the client: a nonce in a read makes it believe that it holds the lease. */
function withoutNonce(machine: Machine): Machine {
  const { nonce: _, ...rest } = machine
  return rest
}

const lastKnown = (placement: MachinePlacement): Machine | undefined =>
  placement.last_known ?? undefined

/**
 * MCH-81: as the host answered last, in the state it announced last. The config is in `incomplete_config` too, where clients
 * look for it.
 */
export function asUnreachable(ctx: ControlContext, machine: Machine): Machine {
  const state = ctx.hosts.machineRow(machine.id)?.state ?? machine.state
  const shown = { ...machine, state, host_status: 'unreachable' as const }
  return Object.assign(shown, { incomplete_config: machine.config })
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
      timeoutMs: readTimeoutMs,
    })
    await remember(ctx, machine)
    return withoutNonce(machine)
  } catch (error) {
    if (isFault(error, 'host_unreachable')) {
      const machine = lastKnown(placement)
      if (machine) return placement.status === 'gone' ? machine : asUnreachable(ctx, machine)
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
