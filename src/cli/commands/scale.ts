import { Fault } from '#core/fault.ts'
import type { Machine } from '#spec/machine.ts'
import type { Volume } from '#spec/volume.ts'
import { processGroups } from '#spec/flatten.ts'
import { parseDefinition } from '#spec/fly-toml.ts'
import { part, type Api } from '../api.ts'
import { getApp } from '../apps.ts'
import type { Call, Command } from '../command.ts'
import { mapBounded } from '../each.ts'
import { aboutApp, jsonFlag, yesFlag } from '../flags.ts'
import { say, sayJson } from '../io.ts'
import {
  isManaged,
  isShortLived,
  listMachines,
  machinePath,
  processGroupOf,
  sizeOf,
  waitForMachine,
} from '../machines.ts'
import { confirm } from '../prompt.ts'
import { nearestRegion } from '../regions.ts'
import { parseCounts, regionChanges, surplus } from '../scale-plan.ts'
import { addMachine, mouldOf, type Mould } from '../scale-up.ts'
import { sayTable } from '../table.ts'
import { isDestroyed, volumesPath } from '../volumes.ts'

/** Machines made or destroyed at a time. */
const width = 4
const startTimeoutMs = 5 * 60_000

interface Step {
  group: string
  region: string
  delta: number
  mould: Mould | undefined
  /** Those of this group and region. */
  machines: Machine[]
}

async function managedMachines(api: Api, app: string): Promise<Machine[]> {
  await getApp(api, app)
  return (await listMachines(api, app)).filter((one) => isManaged(one) && !isShortLived(one))
}

const countBy = (items: readonly string[]): Map<string, number> => {
  const counts = new Map<string, number>()
  for (const item of items) counts.set(item, (counts.get(item) ?? 0) + 1)
  return counts
}

async function runCount(call: Call): Promise<number> {
  const { io, flags } = call
  const api = call.api()
  const app = await call.appName()
  const machines = await managedMachines(api, app)
  const all = await api.get<Volume[]>(volumesPath(app))
  const volumes = all.filter((volume) => !isDestroyed(volume))
  const steps = await planSteps(call, { api, app, machines, volumes })
  if (steps.length === 0) {
    say(io, 'App already scaled to desired state. No need for changes')
    return 0
  }
  say(io, `App '${app}' is going to be scaled according to this plan:`)
  for (const { group, region, delta, mould, machines: present } of steps) {
    const config = mould?.config ?? present[0]?.config
    const sign = delta > 0 ? '+' : ''
    say(
      io,
      `${`${sign}${delta}`.padStart(4)} machines for group '${group}' on region '${region}' of size '${config ? sizeOf(config) : ''}'`,
    )
  }
  // flyctl asks; a plan that only grows is undone by another scale, so nobody has to be there for it.
  if (!flags.on('yes') && (io.interactive || steps.some(({ delta }) => delta < 0))) {
    if (!(await confirm(io, `Scale app ${app}?`, { flag: '--yes' }))) return 0
  }
  say(io, 'Executing scale plan')
  const free = volumes.filter(
    ({ attached_machine_id, state, host_status }) =>
      !attached_machine_id && state === 'created' && host_status !== 'unreachable',
  )
  for (const step of steps) await execute(call, { api, app, step, free })
  return 0
}

async function planSteps(
  { flags, args }: Call,
  options: { api: Api; app: string; machines: Machine[]; volumes: Volume[] },
): Promise<Step[]> {
  const { api, app, machines, volumes } = options
  const counts = parseCounts(args, flags.text('process-group') ?? 'app')
  await checkGroups(api, { app, machines, wanted: [...counts.keys()] })
  const steps: Step[] = []
  for (const [group, { count, relative }] of counts) {
    const present = machines.filter((machine) => processGroupOf(machine) === group)
    const named = flags.texts('region').filter((region) => region !== '')
    const all = [...new Set([...present, ...machines].map(({ region }) => region))]
    const regions = named.length > 0 ? named : all.length > 0 ? all : [await homeRegion(api, app)]
    const inScope = present.filter(({ region }) => regions.includes(region))
    const changes = regionChanges({
      expected: Math.max(0, relative ? inScope.length + count : count),
      current: countBy(inScope.map(({ region }) => region)),
      regions,
      maxPerRegion: flags.number('max-per-region'),
    })
    const grows = [...changes.values()].some((delta) => delta > 0)
    const mould = grows ? await mouldOf(api, { app, group, machines: present, volumes }) : undefined
    for (const [region, delta] of changes) {
      const here = present.filter((machine) => machine.region === region)
      steps.push({ group, region, delta, mould, machines: here })
    }
  }
  return steps
}

async function homeRegion(api: Api, app: string): Promise<string> {
  const definition = await api.find<{ primary_region?: string }>(
    `/api/v1/apps/${part(app)}/definition`,
  )
  return definition?.primary_region ?? (await nearestRegion(api))
}

/** A group is known by the definition last deployed, or by its machines. */
async function checkGroups(
  api: Api,
  options: { app: string; machines: readonly Machine[]; wanted: readonly string[] },
): Promise<void> {
  const definition = await api.find<object>(`/api/v1/apps/${part(options.app)}/definition`)
  const parsed = definition && parseDefinition(definition)
  const known = new Set([
    ...(parsed?.ok ? processGroups(parsed.config) : []),
    ...options.machines.map(processGroupOf),
  ])
  const unknown = options.wanted.filter((group) => !known.has(group))
  if (unknown.length === 0) return
  throw new Fault(
    'bad_request',
    known.size === 0
      ? `app ${options.app} has not been deployed; run: hangar deploy -a ${options.app}`
      : `unknown process group ${unknown.join(', ')}; valid names are ${[...known].join(', ')}: scale one with GROUP=COUNT`,
  )
}

async function execute(
  { io }: Call,
  { api, app, step, free }: { api: Api; app: string; step: Step; free: Volume[] },
): Promise<void> {
  const { group, region, delta, mould } = step
  const about = (machine: Machine) =>
    `${machine.id} group:${group} region:${region} size:${sizeOf(machine.config)}`
  if (mould) {
    await mapBounded(Array.from({ length: Math.max(0, delta) }), width, async () => {
      const machine = await addMachine(api, { app, region, mould, free })
      const volume = machine.config.mounts?.[0]?.volume
      say(io, `  Created ${about(machine)}${volume ? ` volume:${volume}` : ''}`)
      await waitForMachine(api, {
        app,
        id: machine.id,
        states: ['started', 'stopped'],
        timeoutMs: startTimeoutMs,
      })
    })
  }
  await mapBounded(surplus(step.machines, Math.max(0, -delta)), width, async (machine) => {
    // A stop first: it drains, so that scaling down loses no request.
    if (machine.state === 'started') {
      await api.post(`${machinePath(app, machine.id)}/stop`, { id: machine.id })
      await waitForMachine(api, {
        app,
        id: machine.id,
        states: ['stopped', 'destroyed'],
        timeoutMs: startTimeoutMs,
      })
    }
    await api.del(`${machinePath(app, machine.id)}?kill=true`)
    say(io, `  Destroyed ${about(machine)}`)
  })
}

async function runShow(call: Call): Promise<number> {
  const { io, flags } = call
  const app = await call.appName()
  const machines = await managedMachines(call.api(), app)
  const names = [...new Set(machines.map(processGroupOf))].sort()
  const groups = names.map((name) => {
    const mine = machines.filter((machine) => processGroupOf(machine) === name)
    const guest = mine[0]?.config.guest
    return {
      Process: name,
      Count: mine.length,
      CPUKind: guest?.cpu_kind ?? 'shared',
      CPUs: guest?.cpus ?? 1,
      Memory: guest?.memory_mb ?? 256,
      Regions: Object.fromEntries(countBy(mine.map(({ region }) => region))),
    }
  })
  if (flags.on('json')) {
    sayJson(io, groups)
    return 0
  }
  say(io, `VM Resources for app: ${app}`)
  say(io)
  sayTable(io, {
    title: 'Groups',
    headers: ['Name', 'Count', 'Kind', 'CPUs', 'Memory', 'Regions'],
    rows: groups.map((group) => [
      group.Process,
      String(group.Count),
      group.CPUKind,
      String(group.CPUs),
      `${group.Memory} MB`,
      Object.entries(group.Regions)
        .map(([region, count]) => (count > 1 ? `${region}(${count})` : region))
        .sort()
        .join(','),
    ]),
  })
  return 0
}

export const scale: Command = {
  name: 'scale',
  summary: 'Scale app resources',
  commands: [
    {
      name: 'count',
      summary: "Change an app's machine count",
      args: 'COUNT | GROUP=COUNT…',
      argsMin: 1,
      flags: [
        ...aboutApp,
        yesFlag,
        {
          name: 'process-group',
          short: 'g',
          kind: 'text',
          value: 'NAME',
          summary: 'The process group to scale',
        },
        {
          name: 'region',
          short: 'r',
          kind: 'list',
          value: 'CODES',
          summary: 'Regions to act on; else all where the app has machines',
        },
        {
          name: 'max-per-region',
          kind: 'number',
          value: 'N',
          summary: 'Most machines in one region',
        },
      ],
      run: runCount,
    },
    {
      name: 'show',
      summary: 'Show current resources',
      flags: [...aboutApp, jsonFlag],
      run: runShow,
    },
  ],
}
