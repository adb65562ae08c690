import { systemClock } from '#core/clock.ts'
import { Fault } from '#core/fault.ts'
import { generatedName } from '#core/ids.ts'
import type { App } from '#spec/app.ts'
import { relativeTime } from '../age.ts'
import { appPath, chooseOrg, getApp, listApps, listReleases } from '../apps.ts'
import type { Call, Command } from '../command.ts'
import { mapBounded } from '../each.ts'
import { jsonFlag, orgFlag, quietFlag, yesFlag } from '../flags.ts'
import { say, sayJson } from '../io.ts'
import { confirm } from '../prompt.ts'
import { sayTable } from '../table.ts'
import { releases } from './releases.ts'

async function runList({ io, flags, api }: Call): Promise<number> {
  const apps = await listApps(api(), flags.text('org'))
  if (flags.on('json')) {
    sayJson(io, apps)
    return 0
  }
  if (flags.on('quiet')) {
    for (const { name } of apps) say(io, name)
    return 0
  }
  if (apps.length === 0) {
    say(io, 'No apps found')
    return 0
  }
  const latest = await mapBounded(apps, 8, async ({ name, status }) =>
    status === 'pending' ? undefined : (await listReleases(api(), name))[0],
  )
  sayTable(io, {
    headers: ['Name', 'Owner', 'Status', 'Latest Deploy'],
    rows: apps.map(({ name, organization, status }, i) => [
      name,
      organization.slug,
      status,
      latest[i] ? relativeTime(latest[i].created_at, systemClock.now()) : '',
    ]),
  })
  return 0
}

async function runCreate({ io, flags, args, api }: Call): Promise<number> {
  const named = flags.text('name')
  if (args[0] && named && args[0] !== named) {
    throw new Fault(
      'bad_request',
      `two app names specified ${args[0]} and ${named}, only one may be specified`,
    )
  }
  const name = args[0] ?? named ?? (flags.on('generate-name') ? generatedName() : undefined)
  if (!name) {
    throw new Fault('bad_request', 'name argument or flag must be specified, or --generate-name')
  }
  const org = await chooseOrg(api(), flags.text('org'))
  const network = flags.text('network')
  const app = await api().post<App>('/v1/apps', {
    app_name: name,
    org_slug: org.slug,
    ...(network ? { network } : {}),
  })
  if (flags.on('json')) sayJson(io, await getApp(api(), name))
  else say(io, `New app created: ${app?.name ?? name}`)
  return 0
}

async function runDestroy({ io, flags, args, api }: Call): Promise<number> {
  for (const name of args) {
    await getApp(api(), name)
    if (!flags.on('yes')) {
      const sure = await confirm(
        io,
        `Destroying an app is not reversible: its machines, volumes and secrets go too. Destroy app ${name}?`,
        { flag: '--yes' },
      )
      if (!sure) return 0
    }
    await api().del(appPath(name))
    say(io, `Destroyed app ${name}`)
  }
  return 0
}

export const apps: Command = {
  name: 'apps',
  aliases: ['app'],
  summary: 'Manage apps',
  commands: [
    {
      name: 'list',
      aliases: ['ls'],
      summary: 'List applications',
      flags: [jsonFlag, orgFlag, quietFlag('app names')],
      run: runList,
    },
    {
      name: 'create',
      summary: 'Create a new application',
      args: '[APP_NAME]',
      argsMax: 1,
      flags: [
        { name: 'name', kind: 'text', value: 'NAME', summary: 'The app name to use' },
        { name: 'generate-name', kind: 'switch', summary: 'Generate a name for the app' },
        orgFlag,
        {
          name: 'network',
          kind: 'text',
          value: 'NAME',
          summary: 'Custom network for the app; apps share one by default',
        },
        { name: 'machines', kind: 'switch', summary: 'Accepted and ignored', hidden: true },
        yesFlag,
        jsonFlag,
      ],
      run: runCreate,
    },
    {
      name: 'destroy',
      aliases: ['delete', 'remove', 'rm'],
      summary: 'Permanently destroy one or more apps',
      args: 'APP_NAME…',
      argsMin: 1,
      flags: [yesFlag],
      run: runDestroy,
    },
    releases,
  ],
}
