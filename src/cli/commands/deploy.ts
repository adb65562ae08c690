import { Fault } from '#core/fault.ts'
import { parseDefinition } from '#spec/fly-toml.ts'
import { part, type Api } from '../api.ts'
import type { Call, Command } from '../command.ts'
import { deployFlags, deployProject } from '../deploy.ts'
import { aboutApp } from '../flags.ts'
import { colorsOf, say } from '../io.ts'
import { folderOf, openProject, type Project } from '../project.ts'

/** Without a configuration file, the definition last deployed goes on to hold. */
async function deployedProject(api: Api, app: string, folder: string): Promise<Project> {
  const definition = await api.find<Record<string, unknown>>(`/api/v1/apps/${part(app)}/definition`)
  const parsed = parseDefinition(definition ?? {})
  return {
    folder,
    file: undefined,
    config: parsed.ok ? parsed.config : {},
    definition: definition ?? {},
  }
}

async function runDeploy(call: Call): Promise<number> {
  const { io, flags, args } = call
  const colors = colorsOf(io)
  const folder = folderOf(io, args[0])
  say(io, colors.green('==> Verifying app config'))
  const project = openProject(io, { folder, config: flags.text('config') })
  if (project.file) say(io, `Validating ${project.file}`)
  say(io, `${colors.green('✓')} Configuration is valid`)
  say(io, colors.green('--> Verified app config'))
  const app = flags.text('app') ?? (project.config.app || io.env['FLY_APP'])
  if (!app) {
    throw new Fault(
      'bad_request',
      `${project.file ?? folder} names no app: give -a NAME, or write one with: hangar launch`,
    )
  }
  const api = call.api()
  return deployProject(io, {
    api,
    app,
    project: project.file ? project : await deployedProject(api, app, folder),
    flags,
    skipReleaseCommand: flags.on('skip-release-command'),
  })
}

export const deploy: Command = {
  name: 'deploy',
  summary: 'Deploy an app from source or an image',
  details:
    'Build the folder (or take a ready image), and bring its machines to it one after another. The release runs in the cloud: ending this command does not end it.',
  args: '[FOLDER]',
  argsMax: 1,
  flags: [
    ...aboutApp,
    ...deployFlags,
    {
      name: 'skip-release-command',
      kind: 'switch',
      summary: 'Do not run the release command',
    },
  ],
  run: runDeploy,
}
