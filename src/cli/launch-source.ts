import { basename, relative, resolve } from 'node:path'
import { Fault } from '#core/fault.ts'
import type { ResolvedImage } from '#spec/host-api.ts'
import type { Api } from './api.ts'
import type { Call } from './command.ts'
import { exposedPortsOfFile, findDockerfile } from './dockerfile.ts'
import { say } from './io.ts'
import type { Choice, LaunchPlan } from './launch-plan.ts'
import { openProject, type Project } from './project.ts'
import { confirm } from './prompt.ts'
import { findConfigFile } from './app-config.ts'
import { readTextFile } from '#sys/files.ts'

/** What is to be launched, before anything remote is made. */
export interface LaunchSource {
  kind: LaunchPlan['kind']
  /** The configuration that is taken over, undefined for a new one. */
  copied: Project | undefined
  image: string | undefined
  /** Relative to the folder, undefined for the usual name. */
  dockerfile: string | undefined
  internalPort: Choice<number>
}

const portDefault = 8080

/** Looks at the folder and the flags; a Fault says what to add when there is nothing to launch. */
export async function findSource(call: Call, api: Api, folder: string): Promise<LaunchSource> {
  const { io, flags } = call
  const copied = await configToCopy(call, folder)
  const build = copied?.config.build
  const image = flags.text('image') ?? build?.image
  const named = flags.text('dockerfile')
  const dockerfile = named
    ? resolve(io.cwd, named)
    : build?.dockerfile
      ? resolve(folder, build.dockerfile)
      : findDockerfile(folder)
  if (!image && !dockerfile) {
    throw new Fault(
      'bad_request',
      `there is no Dockerfile in ${folder}; add one, name one with --dockerfile, or launch a ready image with --image`,
    )
  }
  say(io, image ? `Using image ${image}` : `Detected a Dockerfile app`)
  const usual =
    dockerfile !== undefined && ['Dockerfile', 'dockerfile'].includes(basename(dockerfile))
  const inFolder = dockerfile === undefined ? '' : relative(folder, dockerfile)
  return {
    kind: copied ? 'fly.toml' : image ? 'image' : 'Dockerfile',
    copied,
    image,
    dockerfile: image || (usual && !inFolder.includes('/')) ? undefined : inFolder,
    internalPort: await portOf(call, api, { copied, image, dockerfile }),
  }
}

async function configToCopy(call: Call, folder: string): Promise<Project | undefined> {
  const { io, flags } = call
  const named = flags.text('config')
  const file = named ? existing(folder, named) : findConfigFile(folder, undefined)
  if (file === undefined) return undefined
  const sure = flags.given('copy-config') ? flags.on('copy-config') : flags.on('yes')
  const question = `An existing ${basename(file)} file was found. Would you like to copy its configuration to the new app?`
  if (!sure && flags.given('copy-config')) return undefined
  if (!sure && !(await confirm(io, question, { flag: '--copy-config or --yes', fallback: true }))) {
    return undefined
  }
  return openProject(io, { folder, config: file })
}

/** `-c` may name the file that is to be written. */
function existing(folder: string, named: string): string | undefined {
  const path = resolve(folder, named)
  return readTextFile(path) === undefined ? undefined : path
}

async function portOf(
  { flags }: Call,
  api: Api,
  options: {
    copied: Project | undefined
    image: string | undefined
    dockerfile: string | undefined
  },
): Promise<Choice<number>> {
  const asked = flags.number('internal-port')
  if (asked !== undefined) return { value: asked, why: 'specified on the command line' }
  const { copied, image, dockerfile } = options
  const written = copied?.config.http_service?.internal_port
  if (written !== undefined) return { value: written, why: 'from your fly.toml' }
  if (image) {
    const resolved = await api.post<ResolvedImage>('/api/v1/images/inspect', { image })
    const [port] = resolved.exposed_ports
    return port === undefined
      ? { value: portDefault, why: 'the image exposes no port' }
      : { value: port, why: 'exposed by the image' }
  }
  const target = flags.text('build-target') ?? copied?.config.build?.['build-target']
  const [port] = dockerfile ? exposedPortsOfFile(dockerfile, target) : []
  return port === undefined
    ? { value: portDefault, why: 'the Dockerfile exposes no port' }
    : { value: port, why: 'EXPOSE in the Dockerfile' }
}
