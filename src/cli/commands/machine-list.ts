import { systemClock } from '#core/clock.ts'
import type { Machine, MachineEvent } from '#spec/machine.ts'
import type { MachineRuntime } from '#spec/runtime.ts'
import { relativeTime } from '../age.ts'
import { getApp } from '../apps.ts'
import type { Call, Command } from '../command.ts'
import { aboutApp, jsonFlag, quietFlag } from '../flags.ts'
import { say, sayJson } from '../io.ts'
import { findMachine, imageOf, listMachines, processGroupOf, sizeOf } from '../machines.ts'
import { sayFields, sayTable } from '../table.ts'

async function runList(call: Call): Promise<number> {
  const { io, flags } = call
  const api = call.api()
  const app = await call.appName()
  await getApp(api, app)
  const machines = await listMachines(api, app)
  if (flags.on('json')) {
    sayJson(io, machines)
    return 0
  }
  if (flags.on('quiet')) {
    for (const { id } of machines) say(io, id)
    return 0
  }
  if (machines.length === 0) {
    say(io, `No machines are available on this app ${app}`)
    return 0
  }
  say(io, `${machines.length} machines have been retrieved from app ${app}.`)
  say(io)
  sayTable(io, {
    title: app,
    headers: [
      'ID',
      'Name',
      'State',
      'Checks',
      'Region',
      'Role',
      'Image',
      'IP Address',
      'Volume',
      'Created',
      'Last Updated',
      'Process Group',
      'Size',
    ],
    rows: machines.map(rowOf),
  })
  if (machines.some((machine) => machine.host_status !== 'ok')) {
    say(io, "* These Machines' hosts could not be reached.")
  }
  return 0
}

const passing = ({ checks }: Machine): string =>
  checks.length === 0
    ? ''
    : `${checks.filter(({ status }) => status === 'passing').length}/${checks.length}`

function rowOf(machine: Machine): string[] {
  const lost = machine.host_status !== 'ok'
  const memory = machine.config.guest?.memory_mb
  return [
    machine.id + (lost ? '*' : ''),
    machine.name,
    machine.state,
    lost ? '' : passing(machine),
    machine.region,
    machine.checks.find(({ name }) => name === 'role')?.output ?? '',
    imageOf(machine),
    machine.private_ip,
    machine.config.mounts?.[0]?.volume ?? '',
    machine.created_at,
    machine.updated_at,
    processGroupOf(machine),
    memory ? `${sizeOf(machine.config)}:${memory}MB` : sizeOf(machine.config),
  ]
}

async function runStatus(call: Call): Promise<number> {
  const { io, flags, args } = call
  const machine = await findMachine(call.api(), await call.appName(args[0]), args[0] ?? '')
  if (flags.on('display-config') || flags.on('json')) {
    sayJson(io, flags.on('json') ? machine : machine.config)
    return 0
  }
  say(io, `Machine ID: ${machine.id}`)
  say(io, `Instance ID: ${machine.instance_id}`)
  say(io, `State: ${machine.state}`)
  say(io, `HostStatus: ${machine.host_status}`)
  say(io)
  sayFields(io, { title: 'VM', fields: fieldsOf(machine) })
  if (machine.checks.length > 0) {
    sayTable(io, {
      title: `Checks [${passing(machine)}]`,
      headers: ['Name', 'Status', 'Last Updated', 'Output'],
      rows: machine.checks.map((check) => [
        check.name,
        check.status,
        relativeTime(check.updated_at, systemClock.now()),
        check.output,
      ]),
    })
  }
  sayTable(io, {
    title: 'Event Logs',
    headers: ['State', 'Event', 'Source', 'Timestamp', 'Info'],
    rows: machine.events.map((event) => {
      const exit = event.request?.exit_event
      return [
        event.status,
        event.type,
        event.source,
        new Date(event.timestamp).toISOString(),
        exit
          ? `exit_code=${exit.exit_code},oom_killed=${exit.oom_killed},requested_stop=${exit.requested_stop}`
          : (event.request?.error ?? resumptionOf(event)),
      ]
    }),
  })
  return 0
}

function fieldsOf(machine: Machine): [string, string][] {
  const { config } = machine
  const guest = config.guest ?? {}
  const words = (list: string[] | null | undefined) => (list?.length ? JSON.stringify(list) : '')
  const volume = config.mounts?.[0]?.volume
  return [
    ['ID', machine.id],
    ['Instance ID', machine.instance_id],
    ['State', machine.state],
    ['Image', imageOf(machine)],
    ['Name', machine.name],
    ['Private IP', machine.private_ip],
    ['Region', machine.region],
    ['Process Group', processGroupOf(machine)],
    ['CPU Kind', guest.cpu_kind ?? ''],
    ['vCPUs', String(guest.cpus ?? '')],
    ['Memory', String(guest.memory_mb ?? '')],
    ...(machine.runtime ? [['Runtime', runtimeOf(machine.runtime)] as [string, string]] : []),
    ['Created', machine.created_at],
    ['Updated', machine.updated_at],
    ['Entrypoint', words(config.init?.entrypoint)],
    ['Command', words(config.init?.cmd)],
    ...(volume ? [['Volume', volume] as [string, string]] : []),
  ]
}

/** Whether the start of a suspended machine went on with what it had in memory. */
function resumptionOf({ request }: MachineEvent): string {
  const resumed = request?.['resumed']
  return resumed === undefined ? '' : resumed ? 'resumed' : 'cold start: its memory was lost'
}

const runtimeOf = ({ kind, accel, note }: MachineRuntime): string =>
  `${kind}${accel ? ` (${accel})` : ''}: ${note}`

export const machineList: Command = {
  name: 'list',
  aliases: ['ls'],
  summary: 'List machines',
  flags: [...aboutApp, jsonFlag, quietFlag('machine ids')],
  run: runList,
}

export const machineStatus: Command = {
  name: 'status',
  aliases: ['show'],
  summary: 'Show the status of a machine',
  args: 'ID',
  argsMin: 1,
  argsMax: 1,
  flags: [
    ...aboutApp,
    jsonFlag,
    {
      name: 'display-config',
      short: 'd',
      kind: 'switch',
      summary: 'Display the machine config as JSON',
    },
  ],
  run: runStatus,
}
