import { resolve } from 'node:path'
import { Fault } from '#core/fault.ts'
import type { Secret } from '#spec/app.ts'
import { parseFlyToml, writeFlyToml } from '#spec/fly-toml.ts'
import { readTextFile, writeFileAtomic } from '#sys/files.ts'
import { findAppName, findConfigFile } from '../app-config.ts'
import { part } from '../api.ts'
import { getApp } from '../apps.ts'
import type { Call, Command } from '../command.ts'
import { aboutApp, yesFlag } from '../flags.ts'
import { colorsOf, complain, say, sayJson } from '../io.ts'
import { isManaged, listMachines } from '../machines.ts'
import { openProject, warnOf } from '../project.ts'
import { confirm } from '../prompt.ts'
import { sayTable } from '../table.ts'

/** The definition last deployed. TOML-3. */
async function deployedDefinition(call: Call, app: string): Promise<Record<string, unknown>> {
  const api = call.api()
  await getApp(api, app)
  const path = `/api/v1/apps/${part(app)}/definition`
  const definition = await api.find<Record<string, unknown>>(path)
  if (definition) return definition
  throw new Fault('not_found', `app ${app} has no release yet; run: hangar deploy -a ${app}`)
}

async function runShow(call: Call): Promise<number> {
  const { io, flags } = call
  const definition = flags.on('local')
    ? openProject(io, { folder: io.cwd, config: flags.text('config') }).definition
    : await deployedDefinition(call, await call.appName())
  if (flags.on('toml')) say(io, writeFlyToml(definition, { at: new Date() }).trimEnd())
  else sayJson(io, definition)
  return 0
}

async function runSave(call: Call): Promise<number> {
  const { io, flags } = call
  const named = flags.text('config')
  const existing = findExisting(io.cwd, named)
  const app = (existing ? undefined : await appOfFolder(call)) ?? (await call.appName())
  const definition = { app, ...(await deployedDefinition(call, app)) }
  const file = existing ?? resolve(io.cwd, named ?? 'fly.toml')
  if (readTextFile(file) !== undefined && !flags.on('yes')) {
    const question = `An existing configuration file has been found at ${file}. Overwrite it?`
    if (!(await confirm(io, question, { flag: '--yes' }))) return 0
  }
  const text = file.endsWith('.json')
    ? `${JSON.stringify(definition, null, 2)}\n`
    : writeFlyToml(definition, { at: new Date() })
  writeFileAtomic(file, text)
  say(io, `Wrote config file ${file}`)
  return 0
}

/** The file to overwrite: a name of a file yet to be made is no mistake here. */
function findExisting(cwd: string, named: string | undefined): string | undefined {
  try {
    return findConfigFile(cwd, named)
  } catch {
    return undefined
  }
}

/** The app of the folder we are in: `-c` names a file yet to be made, which cannot tell. */
const appOfFolder = ({ io, flags }: Call): Promise<string | undefined> =>
  findAppName({ cwd: io.cwd, flag: flags.text('app'), config: undefined, env: io.env })

async function runValidate(call: Call): Promise<number> {
  const { io, flags } = call
  const colors = colorsOf(io)
  const file = findConfigFile(io.cwd, flags.text('config'))
  if (!file) throw new Fault('bad_request', `there is no fly.toml in ${io.cwd}; name one with -c`)
  say(io, `Validating ${file}`)
  const result = parseFlyToml(readTextFile(file) ?? '', { file })
  if (!result.ok) {
    for (const { message } of result.errors) complain(io, `${colors.red('✘')} ${message}`)
    throw new Fault('invalid', 'App configuration is not valid')
  }
  warnOf(io, file, { ...result, ...(flags.on('strict') ? { unknownKeys: [] } : {}) })
  if (flags.on('strict') && result.unknownKeys.length > 0) {
    say(io, 'Strict validation found unrecognised sections or keys:')
    for (const { key, line } of result.unknownKeys) say(io, `  ${file}:${line ?? 1}: ${key}`)
    throw new Fault('invalid', 'strict validation failed')
  }
  say(io, `${colors.green('✓')} Configuration is valid`)
  return 0
}

async function runEnv(call: Call): Promise<number> {
  const { io } = call
  const api = call.api()
  const app = await call.appName()
  await getApp(api, app)
  const { secrets } = await api.get<{ secrets: Secret[] }>(`/v1/apps/${part(app)}/secrets`)
  sayTable(io, {
    title: 'Secrets',
    headers: ['Name', 'Digest', 'Created At'],
    rows: secrets.map(({ name, digest, created_at }) => [name, digest, created_at]),
  })
  const machine = (await listMachines(api, app)).find(isManaged)
  sayTable(io, {
    title: 'Environment variables',
    headers: ['Name', 'Value'],
    rows: Object.entries(machine?.config.env ?? {}),
  })
  return 0
}

export const config: Command = {
  name: 'config',
  summary: "Manage an app's configuration",
  commands: [
    {
      name: 'show',
      aliases: ['display'],
      summary: "Show an app's configuration as JSON",
      flags: [
        ...aboutApp,
        { name: 'local', kind: 'switch', summary: 'Show the local file, not what is deployed' },
        { name: 'toml', kind: 'switch', summary: 'Show it as TOML' },
        { name: 'json', short: 'j', kind: 'switch', summary: 'JSON output (the default)' },
      ],
      run: runShow,
    },
    {
      name: 'save',
      summary: "Save an app's deployed configuration into a file",
      flags: [...aboutApp, yesFlag],
      run: runSave,
    },
    {
      name: 'validate',
      summary: "Validate an app's config file",
      flags: [
        ...aboutApp,
        { name: 'strict', short: 's', kind: 'switch', summary: 'Unknown keys are errors' },
      ],
      run: runValidate,
    },
    {
      name: 'env',
      summary: "Display an app's runtime environment variables",
      flags: aboutApp,
      run: runEnv,
    },
  ],
}
