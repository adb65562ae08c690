import { messageOf } from '#core/fault.ts'
import { parseMachineLine, type MachineLine } from '#spec/machine-line.ts'
import type { Machine, MachineState } from '#spec/machine.ts'
import type { AppRecord } from '../apps/index.ts'
import type { ControlContext } from '../context.ts'
import { callHostBytes } from '../hosts/index.ts'
import {
  isRemembered,
  lastKnownOf,
  markGone,
  placesOf,
  rememberAll,
  type MachinePlace,
} from './placements.ts'
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
  const lines = await listMachineLines(ctx, app, filter)
  return lines.map(({ json }) => JSON.parse(json.toString()) as Machine)
}

/** The same as the JSON of a list: what the hosts wrote, put together and not read. */
export async function listMachinesJson(
  ctx: ControlContext,
  app: AppRecord,
  filter: MachineFilter = {},
): Promise<Buffer<ArrayBuffer>> {
  const lines = await listMachineLines(ctx, app, filter)
  const parts = lines.flatMap(({ json }, index) => (index === 0 ? [json] : [comma, json]))
  return Buffer.concat([Buffer.from('['), ...parts, Buffer.from(']')])
}

const comma = Buffer.from(',')

async function listMachineLines(
  ctx: ControlContext,
  app: AppRecord,
  filter: MachineFilter,
): Promise<MachineLine[]> {
  const places = await placesOf(ctx, app, { includeGone: filter.includeDeleted ?? false })
  const byHost = Map.groupBy(places, (place) => place.host_id)
  const answers = await Promise.all(
    [...byHost.values()].map((group) => linesOfHost(ctx, app, group)),
  )
  const lines = new Map(answers.flat().map((line) => [line.id, line]))
  return places
    .map((place) => lines.get(place.machine_id))
    .filter((line) => line !== undefined)
    .filter((line) => matches(line, filter))
}

async function linesOfHost(
  ctx: ControlContext,
  app: AppRecord,
  places: readonly MachinePlace[],
): Promise<MachineLine[]> {
  const living = places.filter((place) => place.status === 'placed')
  const gone = places.filter((place) => place.status === 'gone')
  const host = places[0]
  if (!host || living.length === 0) return known(ctx, gone)
  let bytes: Buffer
  try {
    bytes = await callHostBytes(ctx, host, {
      method: 'GET',
      path: '/v1/machines',
      query: { app: app.id, lines: 'true' },
      timeoutMs: listTimeoutMs,
    })
  } catch (error) {
    ctx.log.debug({ host: host.host_id, error: messageOf(error) }, 'host lists no machines')
    const silent = await known(ctx, living, (machine) => asUnreachable(ctx, machine))
    return [...(await known(ctx, gone)), ...silent]
  }
  const told = new Map(linesIn(bytes).map((line) => [line.id, line]))
  const wanted = living.map((place) => told.get(place.machine_id))
  const present = wanted.filter((line) => line !== undefined)
  const news = present.filter((line) => !isRemembered(ctx, line))
  await rememberAll(ctx, news)
  // Those destroyed themselves.
  const lost = living.filter((place) => !told.has(place.machine_id))
  for (const { machine_id } of lost) await markGone(ctx, machine_id)
  return [...present, ...(await known(ctx, [...gone, ...lost], asDestroyed))]
}

function linesIn(bytes: Buffer): MachineLine[] {
  const lines: MachineLine[] = []
  for (let from = 0, to; (to = bytes.indexOf(0x0a, from)) !== -1; from = to + 1) {
    lines.push(parseMachineLine(bytes.subarray(from, to)))
  }
  return lines
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
  return last.map(change).map((machine) => ({
    id: machine.id,
    state: machine.state,
    region: machine.region,
    mark: '',
    json: Buffer.from(JSON.stringify(machine)),
  }))
}

function matches(line: MachineLine, filter: MachineFilter): boolean {
  if (!filter.includeDeleted && line.state === 'destroyed') return false
  if (filter.region !== undefined && line.region !== filter.region) return false
  const states: readonly string[] = filter.state === undefined ? [] : [filter.state].flat()
  if (states.length > 0 && !states.includes(line.state)) return false
  const pairs = Object.entries(filter.metadata ?? {})
  if (pairs.length === 0) return true
  const { config } = JSON.parse(line.json.toString()) as Machine
  return pairs.every(([key, value]) => config.metadata?.[key] === value)
}
