import type { HostInfo } from '#spec/host-api.ts'
import type { Machine } from '#spec/machine.ts'
import { findAppName } from '../app-config.ts'
import { getApp, listApps, listReleases } from '../apps.ts'
import type { Call, Command } from '../command.ts'
import { mapBounded } from '../each.ts'
import { aboutApp, jsonFlag } from '../flags.ts'
import { say, sayJson } from '../io.ts'
import {
  checksOf,
  imageOf,
  isManaged,
  isShortLived,
  listMachines,
  processGroupOf,
  releaseVersionOf,
} from '../machines.ts'
import { sayFields, sayTable } from '../table.ts'

interface CloudStatus {
  version: string
  domain: string
  http_port: number
  https_port: number
  hosts: (HostInfo & { reachable: boolean })[]
  apps: number
  /** Machines of hosts that no record names. */
  strays?: { id: string; app: string; host: string; state: string }[]
}

async function runStatus(call: Call): Promise<number> {
  const { io, flags } = call
  const app = await findAppName({
    cwd: io.cwd,
    flag: flags.text('app'),
    config: flags.text('config'),
    env: io.env,
  })
  return app ? appStatus(call, app) : cloudStatus(call)
}

async function appStatus({ io, flags, api }: Call, name: string): Promise<number> {
  const app = await getApp(api(), name)
  const machines = await listMachines(api(), name)
  const managed = machines.filter((machine) => isManaged(machine) && !isShortLived(machine))
  if (flags.on('json')) {
    const [release] = await listReleases(api(), name)
    sayJson(io, {
      ID: app.id,
      Name: app.name,
      Deployed: app.status !== 'pending',
      Status: app.status,
      Hostname: app.hostname,
      Version: release?.version ?? 0,
      AppURL: app.urls[0] ?? '',
      Organization: { Name: app.organization.name, Slug: app.organization.slug },
      PlatformVersion: 'machines',
      Machines: managed,
    })
    return 0
  }
  sayFields(io, {
    title: 'App',
    fields: [
      ['Name', app.name],
      ['Owner', app.organization.slug],
      ['Hostname', app.hostname],
      ['Image', latestImage(managed)],
      ['URL', app.urls.join(' ')],
    ],
  })
  sayMachines(io, managed)
  const others = machines.length - managed.length
  if (others > 0) {
    say(io, `Found machines that aren't part of a deploy, run hangar machine list to see them.`)
  }
  if (machines.length === 0) {
    say(io, `No machines yet; deploy with: hangar deploy -a ${name}`)
  }
  return 0
}

/** The image of the newest release that a machine runs. */
function latestImage(machines: readonly Machine[]): string {
  const newest = machines.toSorted(
    (a, b) => Number(releaseVersionOf(b)) - Number(releaseVersionOf(a)),
  )[0]
  return newest ? imageOf(newest) : '-'
}

function sayMachines(io: Call['io'], machines: readonly Machine[]): void {
  if (machines.length === 0) return
  const standby = (machine: Machine) => (machine.config.standbys?.length ?? 0) > 0
  const lost = (machine: Machine) => machine.host_status !== 'ok'
  const rows = machines.map((machine) => [
    `${processGroupOf(machine) || '<default>'}${standby(machine) ? '†' : ''}${lost(machine) ? '*' : ''}`,
    machine.id,
    releaseVersionOf(machine),
    machine.region,
    machine.state,
    machine.config.metadata?.['role'] ?? '',
    checksOf(machine),
    machine.updated_at,
  ])
  sayTable(io, {
    title: 'Machines',
    headers: ['Process', 'ID', 'Version', 'Region', 'State', 'Role', 'Checks', 'Last Updated'],
    rows: rows.sort((a, b) => (a.join('\0') < b.join('\0') ? -1 : 1)),
  })
  if (machines.some(standby)) {
    say(io, '  † Standby machine (it will take over only in case of host hardware failure)')
  }
  if (machines.some(lost)) say(io, "  * The machine's host is unreachable")
}

async function cloudStatus({ io, flags, api, home }: Call): Promise<number> {
  const status = await api().get<CloudStatus>('/api/v1/status')
  const apps = await listApps(api())
  const states = await mapBounded(apps, 8, async ({ name }) =>
    countStates(await listMachines(api(), name)),
  )
  if (flags.on('json')) {
    sayJson(io, { ...status, api: api().at, home, app_list: apps })
    return 0
  }
  sayFields(io, {
    title: 'Cloud',
    fields: [
      ['Version', status.version],
      ['Domain', `*.${status.domain}`],
      ['HTTP', `port ${status.http_port}`],
      ['HTTPS', `port ${status.https_port}`],
      ['API', api().at],
      ['Home', home],
    ],
  })
  sayTable(io, {
    title: 'Hosts',
    headers: ['ID', 'Region', 'State', 'Machines', 'CPUs', 'Memory', 'Runtime'],
    rows: status.hosts.map((host) => [
      host.id,
      host.region,
      host.reachable ? 'ok' : 'unreachable',
      String(host.machines),
      `${host.used.cpus}/${host.capacity.cpus}`,
      `${host.used.memory_mb}/${host.capacity.memory_mb} MB`,
      wallOf(host),
    ]),
  })
  for (const host of status.hosts) {
    const dropped = droppedOf(host)
    if (dropped) say(io, `  ${host.id}: ${dropped}`)
  }
  for (const note of new Set(status.hosts.map((host) => host.runtime_note).filter(Boolean))) {
    say(io, `  ${note}`)
  }
  say(io)
  const strays = status.strays ?? []
  if (strays.length > 0) {
    sayTable(io, {
      title:
        'Machines that no record names; those of a known app are taken over within two minutes',
      headers: ['ID', 'App', 'Host', 'State'],
      rows: strays.map(({ id, app, host, state }) => [id, app, host, state]),
    })
  }
  if (apps.length === 0) {
    say(io, 'No apps yet. In a folder with a Dockerfile: hangar launch')
    return 0
  }
  sayTable(io, {
    title: 'Apps',
    headers: ['Name', 'Status', 'Machines', 'URL'],
    rows: apps.map((app, i) => [app.name, app.status, states[i] ?? '', app.urls[0] ?? '']),
  })
  return 0
}

/** What machines run in that say nothing themselves, and what that is worth. */
function wallOf({ runtime, accel, isolation }: HostInfo): string {
  if (isolation === 'vm') return `${runtime} (VMs, ${accel ?? 'being tried'})`
  return isolation === 'container' ? `${runtime} (weaker wall)` : runtime
}

/** What machines sent that they may not; undefined when they did not. */
function droppedOf({ dropped }: HostInfo): string | undefined {
  if (!dropped) return undefined
  const { machines, ...packets } = dropped
  const counted = Object.entries(packets).filter(([, count]) => count > 0)
  if (counted.length === 0) return undefined
  const most = machines.slice(0, 3).map(({ id, packets: count }) => `${id} (${count})`)
  const by = most.length > 0 ? `; most by ${most.join(', ')}` : ''
  const words = counted.map(([why, count]) => `${count} ${why.replace('_', ' ')}`)
  return `packets of machines dropped: ${words.join(', ')}${by}`
}

/** `2 started, 1 stopped`. */
function countStates(machines: readonly Machine[]): string {
  const counts = new Map<string, number>()
  for (const { state } of machines) counts.set(state, (counts.get(state) ?? 0) + 1)
  return [...counts].map(([state, count]) => `${count} ${state}`).join(', ') || 'none'
}

export const status: Command = {
  name: 'status',
  summary: 'Show the status of an app, or of the cloud where no app is named',
  flags: [...aboutApp, jsonFlag],
  run: runStatus,
}
