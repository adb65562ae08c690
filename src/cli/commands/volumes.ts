import { systemClock } from '#core/clock.ts'
import { Fault } from '#core/fault.ts'
import type { Volume, VolumeInput } from '#spec/volume.ts'
import { relativeTime } from '../age.ts'
import { part } from '../api.ts'
import { getApp } from '../apps.ts'
import type { Call, Command, Flag } from '../command.ts'
import { aboutApp, jsonFlag, regionFlag, yesFlag } from '../flags.ts'
import { say, sayJson, type Io } from '../io.ts'
import { confirm } from '../prompt.ts'
import { nearestRegion } from '../regions.ts'
import { sayTable } from '../table.ts'

/** CONF-5. */
const sizeDefaultGb = 1

const volumesPath = (app: string) => `/v1/apps/${part(app)}/volumes`

async function runList(call: Call): Promise<number> {
  const { io, flags } = call
  const api = call.api()
  const app = await call.appName()
  await getApp(api, app)
  const all = await api.get<Volume[]>(volumesPath(app))
  const gone = new Set<Volume['state']>(['scheduling_destroy', 'pending_destroy'])
  const volumes = flags.on('all') ? all : all.filter(({ state }) => !gone.has(state))
  if (flags.on('json')) {
    sayJson(io, volumes)
    return 0
  }
  sayTable(io, {
    headers: [
      'ID',
      'State',
      'Name',
      'Size',
      'Region',
      'Zone',
      'Encrypted',
      'Attached VM',
      'Created At',
    ],
    rows: volumes.map((volume) => [
      volume.id + (volume.host_status === 'unreachable' ? '*' : ''),
      volume.state,
      volume.name,
      `${volume.size_gb}GB`,
      volume.region,
      volume.zone,
      String(volume.encrypted),
      volume.attached_machine_id ?? '',
      relativeTime(volume.created_at, systemClock.now()),
    ]),
  })
  if (volumes.some(({ host_status }) => host_status === 'unreachable')) {
    say(io, "* These volumes' hosts could not be reached.")
  }
  return 0
}

function sayVolume(io: Io, volume: Volume, app: string): void {
  const rows: [string, string | number | boolean][] = [
    ['ID', volume.id],
    ['Name', volume.name],
    ['App', app],
    ['Region', volume.region],
    ['Zone', volume.zone],
    ['Size GB', volume.size_gb],
    ['Encrypted', volume.encrypted],
    ['Created at', volume.created_at],
    ['Snapshot retention', volume.snapshot_retention],
    ['Scheduled snapshots', volume.auto_backup_enabled],
  ]
  for (const [name, value] of rows) say(io, `${name.padStart(20)}: ${value}`)
}

async function runCreate(call: Call): Promise<number> {
  const { io, flags, args } = call
  const api = call.api()
  const app = await call.appName()
  await getApp(api, app)
  const count = flags.number('count') ?? 1
  const region = flags.text('region') ?? (await nearestRegion(api))
  if (count === 1 && io.interactive && !flags.on('yes')) {
    const question =
      'A volume lives on one host: with only one, the app is down while that host is. Create it?'
    if (!(await confirm(io, question, { flag: '--yes', fallback: true }))) return 0
  }
  for (let i = 0; i < count; i++) {
    const volume = await api.post<Volume>(volumesPath(app), {
      name: args[0] ?? '',
      region,
      size_gb: flags.number('size') ?? sizeDefaultGb,
      ...(flags.given('snapshot-retention')
        ? { snapshot_retention: flags.number('snapshot-retention') }
        : {}),
      ...(flags.on('no-encryption') ? { encrypted: false } : {}),
      ...(flags.given('require-unique-zone')
        ? { require_unique_zone: flags.on('require-unique-zone') }
        : {}),
    } satisfies VolumeInput)
    if (flags.on('json')) sayJson(io, volume)
    else sayVolume(io, volume, app)
  }
  return 0
}

async function getVolume(call: Call, id: string): Promise<Volume> {
  const app = await call.appName()
  const volume = await call.api().find<Volume>(`${volumesPath(app)}/${part(id)}`)
  if (volume) return volume
  throw new Fault('not_found', `app ${app} has no volume ${id}; see: hangar volumes list -a ${app}`)
}

async function runShow(call: Call): Promise<number> {
  const volume = await getVolume(call, call.args[0] ?? '')
  if (call.flags.on('json')) sayJson(call.io, volume)
  else sayVolume(call.io, volume, await call.appName())
  return 0
}

async function runDestroy(call: Call): Promise<number> {
  const { io, flags, args } = call
  const app = await call.appName()
  for (const id of args) {
    const volume = await getVolume(call, id)
    if (!flags.on('yes')) {
      const question = `Destroying a volume removes its data. Destroy ${id} (${volume.name})?`
      if (!(await confirm(io, question, { flag: '--yes' }))) return 0
    }
    await call.api().del(`${volumesPath(app)}/${part(id)}`)
    say(io, `Destroyed volume ID: ${id} name: ${volume.name}`)
  }
  return 0
}

const createFlags: readonly Flag[] = [
  ...aboutApp,
  jsonFlag,
  yesFlag,
  regionFlag,
  {
    name: 'size',
    short: 's',
    kind: 'number',
    value: 'GB',
    summary: 'The size in gigabytes',
    fallback: '1',
  },
  {
    name: 'count',
    short: 'n',
    kind: 'number',
    value: 'N',
    summary: 'How many to create',
    fallback: '1',
  },
  { name: 'snapshot-retention', kind: 'number', value: 'DAYS', summary: 'Days to keep snapshots' },
  { name: 'no-encryption', kind: 'switch', summary: 'Do not encrypt it' },
  {
    name: 'require-unique-zone',
    kind: 'switch',
    summary: 'Not on the host of another volume of this name',
    fallback: 'true',
  },
]

export const volumes: Command = {
  name: 'volumes',
  aliases: ['volume', 'vol'],
  summary: 'Manage volumes',
  commands: [
    {
      name: 'list',
      aliases: ['ls'],
      summary: "List an app's volumes",
      flags: [
        ...aboutApp,
        jsonFlag,
        { name: 'all', kind: 'switch', summary: 'Show destroyed ones too' },
      ],
      run: runList,
    },
    {
      name: 'create',
      summary: 'Create a volume for an app',
      args: 'NAME',
      argsMin: 1,
      argsMax: 1,
      flags: createFlags,
      run: runCreate,
    },
    {
      name: 'show',
      summary: 'Show a volume',
      args: 'ID',
      argsMin: 1,
      argsMax: 1,
      flags: [...aboutApp, jsonFlag],
      run: runShow,
    },
    {
      name: 'destroy',
      aliases: ['delete', 'remove', 'rm'],
      summary: 'Destroy one or more volumes',
      args: 'ID…',
      argsMin: 1,
      flags: [...aboutApp, yesFlag],
      run: runDestroy,
    },
  ],
}
