import { join, resolve } from 'node:path'
import { Fault } from '#core/fault.ts'
import type { App } from '#spec/app.ts'
import { computeFor } from '#spec/flatten.ts'
import { writeFlyToml } from '#spec/fly-toml.ts'
import { guestOfCompute } from '#spec/guest-of-compute.ts'
import { writeFileAtomic } from '#sys/files.ts'
import type { Api } from '../api.ts'
import { chooseOrg, getApp } from '../apps.ts'
import { keyValues } from '../arguments.ts'
import type { Call, Command } from '../command.ts'
import { deployFlags, deployOptions, deployProject } from '../deploy.ts'
import { configFlag, orgFlag, regionFlag } from '../flags.ts'
import { describeGuest, guestOfFlags } from '../guest.ts'
import { colorsOf, say } from '../io.ts'
import { checkName, chooseName, chooseRegion, whoHas } from '../launch-choices.ts'
import { launchGuest, newDefinition, planLines, type LaunchPlan } from '../launch-plan.ts'
import { findSource, type LaunchSource } from '../launch-source.ts'
import { folderOf, openProject } from '../project.ts'
import { askText, confirm } from '../prompt.ts'

async function runLaunch(call: Call): Promise<number> {
  const { io, flags, args } = call
  const api = call.api()
  // Wrong flags are found before an app is made.
  deployOptions(flags)
  const folder = folderOf(io, args[0] ?? flags.text('path'))
  say(io, 'Scanning source code')
  const source = await findSource(call, api, folder)
  const guest = guestOfFlags(flags) ?? launchGuest
  const named = flags.text('org')
  const plan: LaunchPlan = {
    kind: source.kind,
    org: {
      value: await chooseOrg(api, named),
      why: named ? 'specified on the command line' : 'launch defaults to the personal org',
    },
    name: await chooseName(call, api, { folder, source }),
    ...(await chooseRegion(call, api, source)),
    internalPort: source.internalPort,
    guest: guestChoice(call, source),
  }
  if (!(await agree(call, api, plan))) return 0
  const app = await createApp(call, api, plan)
  const file = writeConfig(call, { folder, source, plan, guest })
  say(io, `Wrote config file ${file}`)
  if (!(await wantsDeploy(call))) {
    say(io, `Your app is ready! Deploy with: hangar deploy`)
    return 0
  }
  const project = openProject(io, { folder, config: file })
  return deployProject(io, { api, app, project, flags })
}

function guestChoice({ flags }: Call, { copied }: LaunchSource): LaunchPlan['guest'] {
  const asked = guestOfFlags(flags)
  if (asked) return { value: describeGuest(asked), why: 'specified on the command line' }
  const compute = copied && computeFor(copied.config, 'app')
  if (compute) return { value: describeGuest(guestOfCompute(compute)), why: 'from your fly.toml' }
  return { value: describeGuest(launchGuest), why: 'most apps need about 1GB of RAM' }
}

/** Shows the plan; a person may change it, anybody else must have said --yes. */
async function agree({ io, flags }: Call, api: Api, plan: LaunchPlan): Promise<boolean> {
  const colors = colorsOf(io)
  const show = () => {
    say(io, `We're about to launch your ${plan.kind} app. Here's what you're getting:`)
    say(io)
    for (const line of planLines(plan, colors)) say(io, line)
    say(io)
  }
  show()
  if (flags.on('yes') || flags.on('now')) return true
  if (!io.interactive) {
    throw new Fault(
      'bad_request',
      'nobody can be asked here whether this is right: give --yes to launch it',
    )
  }
  const tweak = 'Do you want to tweak these settings before proceeding?'
  if (!(await confirm(io, tweak, { flag: '--yes' }))) return true
  const name = await askText(io, 'Name', { initial: plan.name.value, check: checkName })
  if (name !== plan.name.value && (await whoHas(api, name)) !== 'nobody') {
    throw new Fault('name_taken', `the name ${name} is taken; launch again with another one`)
  }
  const port = await askText(io, 'Internal port', {
    initial: String(plan.internalPort.value),
    check: (text) => (/^[1-9]\d{0,4}$/.test(text) ? undefined : 'a port is a number up to 65535'),
  })
  plan.name = { value: name, why: 'chosen by you' }
  plan.internalPort = { value: Number(port), why: 'chosen by you' }
  show()
  return confirm(io, 'Launch it?', { flag: '--yes', fallback: true })
}

async function createApp({ io, flags }: Call, api: Api, plan: LaunchPlan): Promise<string> {
  const name = plan.name.value
  const there = flags.on('reuse-app') && (await whoHas(api, name)) === 'ours'
  if (!there) {
    await api.post<App>('/v1/apps', { app_name: name, org_slug: plan.org.value.slug })
    say(io, `Created app '${name}' in organization '${plan.org.value.slug}'`)
  }
  const { hostname } = await getApp(api, name)
  say(io, `Hostname: ${hostname}`)
  return name
}

/** Writes fly.toml; a copied one is left as it is written where nothing of it changes. */
function writeConfig(
  { flags }: Call,
  options: {
    folder: string
    source: LaunchSource
    plan: LaunchPlan
    guest: typeof launchGuest
  },
): string {
  const { folder, source, plan, guest } = options
  const named = flags.text('config')
  const file = source.copied?.file ?? (named ? resolve(folder, named) : join(folder, 'fly.toml'))
  const app = plan.name.value
  const region = plan.region.value
  const { copied } = source
  const port = plan.internalPort.value
  const service = copied?.config.http_service
  if (
    copied?.config.app === app &&
    copied.config.primary_region === region &&
    (!service || service.internal_port === port)
  ) {
    return file
  }
  const definition = copied
    ? {
        ...copied.definition,
        app,
        primary_region: region,
        ...(service
          ? {
              http_service: {
                ...(copied.definition['http_service'] as object),
                internal_port: port,
              },
            }
          : {}),
      }
    : newDefinition({
        app,
        region,
        internalPort: port,
        guest,
        image: source.image,
        dockerfile: source.dockerfile,
        env: keyValues(flags.texts('env'), '--env'),
      })
  const text = file.endsWith('.json')
    ? `${JSON.stringify(definition, null, 2)}\n`
    : writeFlyToml(definition, { at: new Date() })
  writeFileAtomic(file, text)
  return file
}

async function wantsDeploy({ io, flags }: Call): Promise<boolean> {
  if (flags.on('no-deploy')) return false
  if (flags.on('now') || flags.on('yes')) return true
  return confirm(io, 'Would you like to deploy now?', { flag: '--now', fallback: true })
}

export const launch: Command = {
  name: 'launch',
  summary: 'Create and configure a new app from a folder or an image',
  details:
    'Look at a folder with a Dockerfile (or a ready image), propose a plan, create the app, write fly.toml and deploy.',
  args: '[FOLDER]',
  argsMax: 1,
  flags: [
    { name: 'name', kind: 'text', value: 'NAME', summary: 'Name of the new app' },
    { name: 'generate-name', kind: 'switch', summary: 'Always generate a name for the app' },
    configFlag,
    orgFlag,
    regionFlag,
    { name: 'path', kind: 'text', value: 'FOLDER', summary: 'Path to the app source root' },
    {
      name: 'copy-config',
      kind: 'switch',
      summary: 'Use the configuration file if present without prompting',
    },
    { name: 'no-deploy', kind: 'switch', summary: 'Do not deploy' },
    { name: 'reuse-app', kind: 'switch', summary: 'Launch into an existing app of that name' },
    {
      name: 'internal-port',
      kind: 'number',
      value: 'PORT',
      summary: 'The port your app listens on',
    },
    ...deployFlags,
    ...['no-db', 'no-redis', 'no-object-storage', 'no-github-workflow', 'force-machines'].map(
      (name) => ({ name, kind: 'switch', summary: 'Accepted and ignored', hidden: true }) as const,
    ),
  ],
  run: runLaunch,
}
