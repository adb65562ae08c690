import { Fault } from '#core/fault.ts'
import { parseGoDuration } from '#core/units.ts'
import type { ResolvedImage } from '#spec/host-api.ts'
import type { DeployInput, Release } from '#spec/release.ts'
import { humanBytes } from './age.ts'
import { part, type Api } from './api.ts'
import { getApp } from './apps.ts'
import { keyValues } from './arguments.ts'
import { buildImage } from './build.ts'
import type { Flag, FlagValues } from './command.ts'
import { detachFlag, envFlag, imageFlag, nowFlag, vmFlags, yesFlag } from './flags.ts'
import { durationFlag, guestOfFlags } from './guest.ts'
import { imageSource } from './image-source.ts'
import { colorsOf, say, type Io } from './io.ts'
import { withLocalFiles, type Project } from './project.ts'
import { followRelease } from './release.ts'

const hidden = (name: string, kind: Flag['kind'] = 'switch'): Flag => ({
  name,
  kind,
  summary: 'Accepted and ignored',
  hidden: true,
})

/** What `deploy` takes, and `launch` hands on. */
export const deployFlags: readonly Flag[] = [
  imageFlag,
  nowFlag,
  detachFlag,
  yesFlag,
  envFlag,
  ...vmFlags,
  { name: 'dockerfile', kind: 'text', value: 'PATH', summary: 'Path to a Dockerfile' },
  { name: 'ignorefile', kind: 'text', value: 'PATH', summary: 'Path to a Docker ignore file' },
  {
    name: 'image-label',
    kind: 'text',
    value: 'LABEL',
    summary: 'Tag of the built image (default deployment-ULID)',
  },
  {
    name: 'build-arg',
    kind: 'texts',
    value: 'NAME=VALUE',
    summary: 'Set a build argument; can be repeated',
  },
  {
    name: 'build-secret',
    kind: 'texts',
    value: 'NAME=VALUE',
    summary: 'Set a build secret; can be repeated',
  },
  { name: 'build-target', kind: 'text', value: 'STAGE', summary: 'The build stage to build' },
  { name: 'no-cache', kind: 'switch', summary: 'Build without the cache' },
  { name: 'build-only', kind: 'switch', summary: 'Build and do not deploy' },
  {
    name: 'strategy',
    kind: 'text',
    value: 'NAME',
    summary: 'How machines are replaced: rolling or immediate',
  },
  {
    name: 'ha',
    kind: 'switch',
    summary: 'Create spare machines on the first deploy',
    fallback: 'true',
  },
  {
    name: 'wait-timeout',
    kind: 'text',
    value: 'DURATION',
    summary: 'How long each machine may take to become healthy',
    fallback: '5m',
  },
  {
    name: 'release-command-timeout',
    kind: 'text',
    value: 'DURATION',
    summary: 'How long the release command may take, or none',
    fallback: '5m',
  },
  { name: 'primary-region', kind: 'text', value: 'CODE', summary: 'Override primary_region' },
  ...['remote-only', 'local-only', 'depot', 'buildkit', 'smoke-checks', 'dns-checks', 'push'].map(
    (name) => hidden(name),
  ),
  ...['no-public-ips', 'wg', 'provision-extensions', 'recreate-builder'].map((name) =>
    hidden(name),
  ),
  hidden('lease-timeout', 'text'),
  hidden('max-concurrent', 'number'),
  hidden('deploy-retries', 'text'),
]

/** Longer than any release command should take, for `none`. */
const noTimeoutMs = 24 * 60 * 60 * 1000

const strategyOf = (flags: FlagValues): 'rolling' | 'immediate' | undefined => {
  const named = flags.text('strategy')
  if (named === undefined || named === 'rolling' || named === 'immediate') return named
  const later = named === 'canary' || named === 'bluegreen'
  throw new Fault(
    'bad_request',
    `--strategy ${named} ${later ? 'is not available yet' : 'is unknown'}; use rolling or immediate`,
  )
}

/** Everything of a deploy that the flags say; wrong ones are found before anything remote happens. */
export function deployOptions(flags: FlagValues): Omit<DeployInput, 'definition' | 'image'> {
  const env = keyValues(flags.texts('env'), '--env')
  const waitTimeoutMs = durationFlag(flags, 'wait-timeout', parseGoDuration)
  const commandTimeoutMs =
    flags.text('release-command-timeout') === 'none'
      ? noTimeoutMs
      : durationFlag(flags, 'release-command-timeout', parseGoDuration)
  const strategy = strategyOf(flags)
  const guest = guestOfFlags(flags)
  const primaryRegion = flags.text('primary-region')
  return {
    ...(strategy ? { strategy } : {}),
    ...(flags.given('ha') ? { ha: flags.on('ha') } : {}),
    ...(waitTimeoutMs === undefined ? {} : { wait_timeout_ms: waitTimeoutMs }),
    ...(commandTimeoutMs === undefined ? {} : { release_command_timeout_ms: commandTimeoutMs }),
    ...(Object.keys(env).length > 0 ? { env } : {}),
    ...(guest ? { guest: { ...guest } } : {}),
    ...(primaryRegion ? { primary_region: primaryRegion } : {}),
  }
}

/** From a project to traffic: image, release, its progress, the URL. Resolves with the exit code. */
export async function deployProject(
  io: Io,
  options: {
    api: Api
    app: string
    project: Project
    flags: FlagValues
    skipReleaseCommand?: boolean
  },
): Promise<number> {
  const { api, app: name, project, flags } = options
  const input = deployOptions(flags)
  const definition = withLocalFiles(project)
  // The server would say so too, but only after the build.
  if (!input.strategy && !flags.on('build-only')) checkStrategy(project)
  // Looked for before the app is: a missing Dockerfile is known here.
  const source = imageSource(project, flags, io.cwd)
  const app = await getApp(api, name)
  const image = await obtainImage(io, options, source)
  say(io, `image: ${image.ref}`)
  say(io, `image size: ${humanBytes(image.size)}`)
  if (flags.on('build-only')) return 0
  say(io)
  const release = await api.post<Release>(`/api/v1/apps/${part(name)}/deploys`, {
    ...input,
    definition,
    image: image.ref,
    ...(options.skipReleaseCommand ? { skip_release_command: true } : {}),
  } satisfies DeployInput)
  if (flags.on('detach')) {
    say(io, `Release v${release.version} of ${name} is under way; see: hangar releases -a ${name}`)
    return 0
  }
  if (!(await followRelease(io, { api, app: name, release }))) return 1
  const secure = onlyHttps(project) ? app.urls.find((one) => one.startsWith('https:')) : undefined
  const url = secure ?? app.urls[0]
  if (url && servesTraffic(project)) {
    say(io)
    say(io, `Visit your newly deployed app at ${colorsOf(io).bold(url)}`)
  }
  return 0
}

const servesTraffic = ({ config }: Project): boolean =>
  config.http_service !== undefined || (config.services?.length ?? 0) > 0

function checkStrategy({ config }: Project): void {
  const named = config.deploy?.strategy
  if (named !== 'canary' && named !== 'bluegreen') return
  throw new Fault(
    'not_available_yet',
    `deploy.strategy "${named}" is not available yet; write "rolling" or "immediate" there, or give --strategy`,
  )
}

/** Where plain HTTP only redirects (PRX-11), the URL to show is the one that answers. */
const onlyHttps = ({ config }: Project): boolean =>
  config.http_service?.force_https === true ||
  (config.services ?? []).some(({ ports }) => ports?.some((port) => port.force_https))

async function obtainImage(
  io: Io,
  options: { api: Api; app: string; project: Project; flags: FlagValues },
  source: ReturnType<typeof imageSource>,
): Promise<{ ref: string; size: number }> {
  const { api, app, project, flags } = options
  if (source.kind === 'image') {
    say(io, `Searching for image '${source.image}'...`)
    return api.post<ResolvedImage>('/api/v1/images/inspect', { image: source.image })
  }
  const build = project.config.build ?? {}
  return buildImage(io, api, {
    app,
    folder: project.folder,
    dockerfile: source.dockerfile,
    ignorefile: source.ignorefile,
    target: flags.text('build-target') ?? build['build-target'],
    // TOML-22: the command line wins.
    args: { ...build.args, ...keyValues(flags.texts('build-arg'), '--build-arg') },
    secrets: keyValues(flags.texts('build-secret'), '--build-secret'),
    label: flags.text('image-label'),
    noCache: flags.on('no-cache'),
  })
}
