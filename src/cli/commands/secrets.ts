import { Fault } from '#core/fault.ts'
import type { Secret } from '#spec/app.ts'
import type { Machine } from '#spec/machine.ts'
import type { Release } from '#spec/release.ts'
import { part, type Api } from '../api.ts'
import { getApp, listReleases } from '../apps.ts'
import { keyValues } from '../arguments.ts'
import type { Call, Command, Flag } from '../command.ts'
import { aboutApp, detachFlag, jsonFlag } from '../flags.ts'
import { colorsOf, complain, readStdin, say, sayJson, type Io } from '../io.ts'
import { isManaged, isShortLived, listMachines, releaseVersionOf } from '../machines.ts'
import { followRelease } from '../release.ts'
import { parseSecrets } from '../secrets-input.ts'
import { sayTable } from '../table.ts'

type Status = 'Deployed' | 'Staged' | 'Partial'

const secretsPath = (app: string) => `/v1/apps/${part(app)}/secrets`

async function runList(call: Call): Promise<number> {
  const { io, flags } = call
  const api = call.api()
  const app = await call.appName()
  const { secrets } = await api.get<{ secrets: Secret[] }>(secretsPath(app))
  const machines = (await listMachines(api, app)).filter((one) => !isShortLived(one))
  const releases = machines.length > 0 ? await listReleases(api, app) : []
  const list = secrets.map((secret) => ({
    name: secret.name,
    digest: secret.digest,
    status: statusOf(secret, machines, releases),
  }))
  if (flags.on('json')) {
    sayJson(io, list)
    return 0
  }
  const marks = { Deployed: '', Staged: '* ', Partial: '! ' }
  sayTable(io, {
    headers: ['Name', 'Digest', 'Status'],
    rows: list.map(({ name, digest, status }) => [marks[status] + name, digest, status]),
  })
  if (list.some(({ status }) => status !== 'Deployed')) {
    say(io, `Some secrets are not on every machine yet; run: hangar secrets deploy -a ${app}`)
  }
  return 0
}

/** SEC-2: a machine has the values there were at its release, or at its last start. */
export function statusOf(
  secret: Pick<Secret, 'updated_at'>,
  machines: readonly Machine[],
  releases: readonly Pick<Release, 'version' | 'created_at'>[],
): Status {
  const changed = Date.parse(secret.updated_at)
  const has = machines.filter((machine) => knownAt(machine, releases) >= changed)
  if (has.length === 0) return 'Staged'
  return has.length === machines.length ? 'Deployed' : 'Partial'
}

const readingEvents = new Set(['launch', 'start', 'update', 'restart'])

function knownAt(
  machine: Machine,
  releases: readonly Pick<Release, 'version' | 'created_at'>[],
): number {
  const version = Number(releaseVersionOf(machine))
  const release = releases.find((one) => one.version === version)
  const start = machine.events.find(({ type }) => readingEvents.has(type))
  return Math.max(release ? Date.parse(release.created_at) : 0, start?.timestamp ?? 0)
}

async function runSet(call: Call): Promise<number> {
  // A value is taken as it is: quotes and # were the shell's business.
  const values = secretPairs(call.args)
  for (const [name, value] of Object.entries(values)) {
    if (value === '-') values[name] = await fromStdin(call.io, name)
  }
  return change(call, values)
}

function secretPairs(args: readonly string[]): Record<string, string> {
  if (args.every((arg) => arg.indexOf('=') > 0)) return keyValues(args, 'secrets')
  // The argument itself may be a secret, so it is not repeated.
  throw new Fault('bad_request', 'secrets must be provided as NAME=VALUE pairs')
}

async function fromStdin(io: Io, name: string): Promise<string> {
  if (!io.stdinIsTerminal) return readStdin(io)
  throw new Fault('bad_request', `secret ${name} expects standard input but none provided`)
}

async function runImport(call: Call): Promise<number> {
  const values = parseSecrets(await fromStdin(call.io, 'import'))
  if (Object.keys(values).length === 0) {
    throw new Fault('bad_request', 'requires at least one NAME=VALUE pair on standard input')
  }
  return change(call, values)
}

const runUnset = (call: Call): Promise<number> =>
  change(call, Object.fromEntries(call.args.map((name) => [name, null])))

interface Stored {
  version?: number
  secrets: Pick<Secret, 'name'>[]
}

/** Stores the values, and brings them to the running machines unless `--stage`. SEC-3, SEC-4. */
async function change(call: Call, values: Record<string, string | null>): Promise<number> {
  const { io, flags } = call
  const api = call.api()
  const app = await call.appName()
  await getApp(api, app)
  const before = await api.get<Stored>(secretsPath(app))
  for (const [name, value] of Object.entries(values)) {
    if (value !== null || before.secrets.some((one) => one.name === name)) continue
    complain(io, `${colorsOf(io).yellow('WARN')} app ${app} has no secret ${name}`)
  }
  const after = await api.post<Stored>(secretsPath(app), { values })
  if (after.version === before.version) {
    say(io, 'No change detected to secrets. Skipping release.')
    return 0
  }
  if (flags.on('stage')) {
    say(
      io,
      'Secrets have been staged, but not set on VMs. Deploy or update machines in this app for the secrets to take effect.',
    )
    return 0
  }
  return apply(call, api, app)
}

async function runDeploy(call: Call): Promise<number> {
  const api = call.api()
  const app = await call.appName()
  await getApp(api, app)
  return apply(call, api, app)
}

async function apply({ io, flags }: Call, api: Api, app: string): Promise<number> {
  const machines = (await listMachines(api, app)).filter(
    (one) => isManaged(one) && !isShortLived(one),
  )
  if (machines.length === 0) {
    say(io, 'Secrets are staged for the first deployment')
    return 0
  }
  const release = await api.post<Release>(`/api/v1/apps/${part(app)}/secrets/apply`)
  if (flags.on('detach')) {
    say(io, `Release v${release.version} of ${app} is under way; see: hangar releases -a ${app}`)
    return 0
  }
  return (await followRelease(io, { api, app, release })) ? 0 : 1
}

const changing: readonly Flag[] = [
  ...aboutApp,
  detachFlag,
  { name: 'stage', kind: 'switch', summary: 'Set secrets but skip the deployment' },
  { name: 'dns-checks', kind: 'switch', summary: 'Accepted and ignored', hidden: true },
]

export const secrets: Command = {
  name: 'secrets',
  aliases: ['secret'],
  summary: 'Manage application secrets',
  commands: [
    {
      name: 'list',
      aliases: ['ls'],
      summary: 'List secret names, digests and where they are',
      flags: [...aboutApp, jsonFlag],
      run: runList,
    },
    {
      name: 'set',
      summary: 'Set one or more secrets; a value of - is read from standard input',
      args: 'NAME=VALUE…',
      argsMin: 1,
      flags: changing,
      run: runSet,
    },
    {
      name: 'import',
      summary: 'Set secrets as NAME=VALUE pairs from standard input',
      flags: changing,
      run: runImport,
    },
    {
      name: 'unset',
      aliases: ['rm', 'remove'],
      summary: 'Unset one or more secrets',
      args: 'NAME…',
      argsMin: 1,
      flags: changing,
      run: runUnset,
    },
    {
      name: 'deploy',
      summary: 'Bring staged secrets to the machines',
      flags: [...aboutApp, detachFlag],
      run: runDeploy,
    },
  ],
}
