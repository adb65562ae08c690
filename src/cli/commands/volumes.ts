import { systemClock } from '#core/clock.ts'
import { Fault } from '#core/fault.ts'
import type { Volume, VolumeChange, VolumeExtended } from '#spec/volume.ts'
import { relativeTime } from '../age.ts'
import { getApp } from '../apps.ts'
import type { Call, Command } from '../command.ts'
import { aboutApp, jsonFlag, yesFlag } from '../flags.ts'
import { colorsOf, say, sayJson } from '../io.ts'
import { confirm } from '../prompt.ts'
import { sayTable } from '../table.ts'
import {
  getVolume,
  isDestroyed,
  showVolume,
  sizeGbFrom,
  volumePath,
  volumesPath,
} from '../volumes.ts'
import { createVolume, forkVolume } from './volume-make.ts'
import { snapshots } from './volume-snapshots.ts'

async function runList(call: Call): Promise<number> {
  const { io, flags } = call
  const api = call.api()
  const app = await call.appName()
  await getApp(api, app)
  const all = await api.get<Volume[]>(volumesPath(app))
  const volumes = flags.on('all') ? all : all.filter((volume) => !isDestroyed(volume))
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

async function runShow(call: Call): Promise<number> {
  await showVolume(call, await getVolume(call, call.args[0] ?? ''))
  return 0
}

/** VOL-17. */
async function runUpdate(call: Call): Promise<number> {
  const { args, flags } = call
  const { id } = await getVolume(call, args[0] ?? '')
  const change: VolumeChange = {
    ...(flags.given('snapshot-retention')
      ? { snapshot_retention: flags.number('snapshot-retention') }
      : {}),
    ...(flags.given('scheduled-snapshots')
      ? { auto_backup_enabled: flags.on('scheduled-snapshots') }
      : {}),
  }
  if (Object.keys(change).length === 0) {
    throw new Fault(
      'bad_request',
      'nothing to change; give --snapshot-retention DAYS or --scheduled-snapshots',
    )
  }
  const path = volumePath(await call.appName(), id)
  await showVolume(call, await call.api().put<Volume>(path, change))
  return 0
}

/** VOL-2. */
async function runExtend(call: Call): Promise<number> {
  const { io, args, flags } = call
  const app = await call.appName()
  const size = flags.text('size')
  if (!size)
    throw new Fault('bad_request', 'give the new size with --size: 4, 4gb, or +1 for one more GB')
  const present = await getVolume(call, args[0] ?? '')
  const { volume, needs_restart } = await call
    .api()
    .put<VolumeExtended>(`${volumePath(app, present.id)}/extend`, {
      size_gb: sizeGbFrom(size, present.size_gb),
    })
  await showVolume(call, volume)
  if (flags.on('json')) return 0
  const machine = volume.attached_machine_id
  const colors = colorsOf(io)
  if (needs_restart) {
    const words =
      'You will need to stop and start your Machine to increase the size of the file system'
    say(io, colors.yellow(`${words}: hangar machine restart ${machine ?? 'ID'} -a ${app}`))
  } else if (machine) {
    say(io, colors.green('Your Machine got its volume size extended without needing a restart'))
  }
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
    await call.api().del(volumePath(app, id))
    say(io, `Destroyed volume ID: ${id} name: ${volume.name}`)
  }
  return 0
}

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
    createVolume,
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
      name: 'update',
      summary:
        'Change how long snapshots of a volume are kept, and whether they are taken every day',
      args: 'ID',
      argsMin: 1,
      argsMax: 1,
      flags: [
        ...aboutApp,
        jsonFlag,
        {
          name: 'snapshot-retention',
          kind: 'number',
          value: 'DAYS',
          summary: 'Days to keep new snapshots',
        },
        { name: 'scheduled-snapshots', kind: 'switch', summary: 'Take a snapshot every day' },
      ],
      run: runUpdate,
    },
    {
      name: 'extend',
      summary: 'Make a volume larger, also while it is in use',
      args: 'ID',
      argsMin: 1,
      argsMax: 1,
      flags: [
        ...aboutApp,
        jsonFlag,
        yesFlag,
        {
          name: 'size',
          short: 's',
          kind: 'text',
          value: 'SIZE',
          summary: 'The new size in gigabytes, or what to add: 4, 4gb, +1',
        },
      ],
      run: runExtend,
    },
    forkVolume,
    {
      name: 'destroy',
      aliases: ['delete', 'remove', 'rm'],
      summary: 'Destroy one or more volumes',
      args: 'ID…',
      argsMin: 1,
      flags: [...aboutApp, yesFlag],
      run: runDestroy,
    },
    snapshots,
  ],
}
