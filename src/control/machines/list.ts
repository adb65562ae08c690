import { messageOf } from '#core/fault.ts'
import {
  joinMachines,
  machineLine,
  machineOf,
  readMachineList,
  type MachineLine,
} from '#spec/machine-line.ts'
import type { Machine, MachineState } from '#spec/machine.ts'
import type { AppRecord } from '../apps/index.ts'
import type { ControlContext } from '../context.ts'
import { callHostBytes } from '../hosts/index.ts'
import { lastKnownOf, markGone, placesOf, rememberAll, type MachinePlace } from './placements.ts'
import { asUnreachable } from './read.ts'

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
  return (await listMachineLines(ctx, app, filter)).map(machineOf)
}

/** The same as the JSON of a list: what the hosts wrote, put together and not read. */
export async function listMachinesJson(
  ctx: ControlContext,
  app: AppRecord,
  filter: MachineFilter = {},
): Promise<Buffer<ArrayBuffer>> {
  return joinMachines(await listMachineLines(ctx, app, filter))
}

async function listMachineLines(
  ctx: ControlContext,
  app: AppRecord,
  filter: MachineFilter,
): Promise<MachineLine[]> {
  const places = await placesOf(ctx, app, { includeGone: filter.includeDeleted ?? false })
  const byHost = Map.groupBy(places, (place) => place.host_id)
  const told = new Map(
    await Promise.all(
      [...byHost].map(async ([id, group]) => [id, await linesOfHost(ctx, app, group)] as const),
    ),
  )
  return places
    .map((place) => told.get(place.host_id)?.get(place.machine_id))
    .filter((line) => line !== undefined && matches(line, filter)) as MachineLine[]
}

async function linesOfHost(
  ctx: ControlContext,
  app: AppRecord,
  places: readonly MachinePlace[],
): Promise<Map<string, MachineLine>> {
  const living = places.filter((place) => place.status === 'placed')
  const gone = places.filter((place) => place.status === 'gone')
  const host = places[0]
  if (!host || living.length === 0) return byId(await known(ctx, gone))
  let bytes: Buffer
  try {
    bytes = await callHostBytes(ctx, host, {
      method: 'GET',
      path: '/v1/machines',
      query: { app: app.id, indexed: 'true' },
      timeoutMs: listTimeoutMs,
    })
  } catch (error) {
    ctx.log.debug({ host: host.host_id, error: messageOf(error) }, 'host lists no machines')
    const silent = await known(ctx, living, (machine) => asUnreachable(ctx, machine))
    return byId([...(await known(ctx, gone)), ...silent])
  }
  const told = byId(readMachineList(bytes))
  const present = living.map((place) => told.get(place.machine_id))
  await rememberAll(
    ctx,
    present.filter((line) => line !== undefined),
  )
  // Those destroyed themselves.
  const lost = living.filter((place) => !told.has(place.machine_id))
  for (const { machine_id } of lost) await markGone(ctx, machine_id)
  for (const line of await known(ctx, [...gone, ...lost], asDestroyed)) told.set(line.id, line)
  return told
}

const byId = (lines: readonly MachineLine[]): Map<string, MachineLine> => {
  const all = new Map<string, MachineLine>()
  for (const line of lines) all.set(line.id, line)
  return all
}

const asDestroyed = (machine: Machine): Machine => ({ ...machine, state: 'destroyed' })

/** Machines as their hosts answered last. */
async function known(
  ctx: ControlContext,
  places: readonly MachinePlace[],
  change: (machine: Machine) => Machine = (machine) => machine,
): Promise<MachineLine[]> {
  if (places.length === 0) return []
  const last = await lastKnownOf(
    ctx,
    places.map((place) => place.machine_id),
  )
  return last.map(change).map(machineLine)
}

function matches(line: MachineLine, filter: MachineFilter): boolean {
  if (!filter.includeDeleted && line.state === 'destroyed') return false
  if (filter.region !== undefined && line.region !== filter.region) return false
  const states: readonly string[] = filter.state === undefined ? [] : [filter.state].flat()
  if (states.length > 0 && !states.includes(line.state)) return false
  const pairs = Object.entries(filter.metadata ?? {})
  if (pairs.length === 0) return true
  const { config } = machineOf(line)
  return pairs.every(([key, value]) => config.metadata?.[key] === value)
}
