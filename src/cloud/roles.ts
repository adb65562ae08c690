import { join } from 'node:path'
import { httpRequest } from '#sys/http-client.ts'
import { writeFileAtomic } from '#sys/files.ts'
import type {
  CloudConfig,
  ControlSettings,
  EdgeSettings,
  HostSettings,
  RegistryAccess,
} from '#spec/settings.ts'
import { clusterKeyOf } from './authority.ts'
import { childEnvironment } from './environment.ts'
import type { Home } from './home.ts'
import { postgresUrl } from './natives/postgres.ts'
import { filesOf, type Part } from './part.ts'
import { regionsOfPlaces } from './shape.ts'
import type { CloudState, Place } from './state.ts'
import { openWakerSocket, type WakerSocket } from './waker-socket.ts'

export const programFile = join(import.meta.dirname, '../../bin/hangar.ts')

/** PID 1 of machines, which set-up builds. */
export const initFile = join(import.meta.dirname, '../../build/guest/init')

const kernelDir = join(import.meta.dirname, '../../build/guest/kernel')

/** What every role's part is made from. */
export interface World {
  home: Home
  config: CloudConfig
  state: CloudState
}

const natsUrl = (world: World) => `nats://127.0.0.1:${world.state.ports.nats}`
const registryHost = (world: World) => `127.0.0.1:${world.state.ports.registry}`
const remedyOfRole = 'see the log above; check this machine with: hangar doctor'

export const hostPartName = (place: Place): string => `host-${place.id}`
export const edgePartName = (place: Place): string => `edge-${place.id}`

/** A host waits most of the time: memory that only makes collections rarer is worth more to its machines. In MiB. */
const hostNodeArgs = ['--max-semi-space-size=2']

function rolePart(options: {
  home: Home
  name: string
  role: 'control' | 'host' | 'edge'
  needs: readonly string[]
  settings: unknown
  probe: Part['probe']
  handDown?: () => { fds: number[]; env: Record<string, string> }
  nodeArgs?: readonly string[]
}): Part {
  const { home, name, role } = options
  const settings = home.settings(`${name}.json`)
  return {
    name,
    ...filesOf(home, name),
    needs: options.needs,
    readyTimeoutMs: 60_000,
    stopSignal: 'SIGTERM',
    stopGraceMs: 15_000,
    remedy: remedyOfRole,
    prepare: async () =>
      writeFileAtomic(settings, JSON.stringify(options.settings, null, 2), 0o600),
    command: () => {
      const { fds, env } = options.handDown?.() ?? { fds: [], env: {} }
      return {
        command: process.execPath,
        args: [...(options.nodeArgs ?? []), programFile, role, '--settings', settings],
        env: childEnvironment(env),
        cwd: '/',
        fds,
      }
    },
    probe: options.probe,
  }
}

/** Any answer will do: it is there. */
async function answers(target: string, path: string, headers: Record<string, string> = {}) {
  const answer = await httpRequest(target, { method: 'GET', path, headers, timeoutMs: 2_000 })
  answer.body.resume()
  return answer.status
}

export function controlPart(world: World): Part {
  const { home, config, state } = world
  const settings: ControlSettings = {
    dir: home.data('control'),
    database_url: config.database_url ?? postgresUrl(home),
    nats_url: natsUrl(world),
    cluster_key_file: home.clusterKey,
    listen: { address: '127.0.0.1', port: state.ports.api },
    domain: config.domain,
    http_port: state.ports.http,
    https_port: state.ports.https,
    registry_host: registryHost(world),
    registry_token_key_file: home.registryToken.key,
    registry_token_cert_file: home.registryToken.cert,
    docker_host: `unix://${home.dockerSocket}`,
    regions: regionsOfPlaces(state.places),
    first_token_file: home.token,
  }
  return rolePart({
    home,
    name: 'control',
    role: 'control',
    needs: config.database_url ? ['nats'] : ['nats', 'postgres'],
    settings,
    probe: async () =>
      (await answers(`http://127.0.0.1:${state.ports.api}`, '/api/v1/viewer')) < 500,
  })
}

export function hostPart(world: World, place: Place): Part {
  const { home, config } = world
  const key = clusterKeyOf(home)
  const own: RegistryAccess = {
    host: registryHost(world),
    username: 'cluster',
    password: key,
    insecure: true,
  }
  const named = Object.entries(config.registries).map(([host, credentials]) => ({
    host,
    ...credentials,
    insecure: false,
  }))
  const listen = `unix:${hostSocket(home, place)}`
  const settings: HostSettings = {
    id: place.id,
    number: place.number,
    region: place.region,
    dir: join(home.data('hosts'), place.id),
    listen,
    nats_url: natsUrl(world),
    cluster_key_file: home.clusterKey,
    runtime: config.runtime,
    kernel_dir: kernelDir,
    cpu_overcommit: config.cpu_overcommit,
    mirrors: config.mirrors,
    registries: [own, ...named],
    ipv4_block: place.ipv4_block,
  }
  return rolePart({
    home,
    name: hostPartName(place),
    role: 'host',
    nodeArgs: hostNodeArgs,
    needs: ['nats'],
    settings,
    probe: async () =>
      (await answers(listen, '/v1/host', { authorization: `Bearer ${key}` })) === 200,
  })
}

export const hostSocket = (home: Home, place: Place): string => home.socket(hostPartName(place))

export function edgePart(world: World, place: Place): Part {
  const { home, config } = world
  const settings: EdgeSettings = {
    id: place.id,
    region: place.region,
    dir: edgeFolder(home, place.id),
    domain: config.domain,
    nats_url: natsUrl(world),
    cluster_key_file: home.clusterKey,
    http_port: place.http_port,
    https_port: place.https_port,
    slots: config.edge.slots,
    autostop_interval_ms: config.edge.autostop_interval_ms,
    hold_ms: config.edge.hold_ms,
    ca_cert_file: home.ca.cert,
    ca_key_file: home.ca.key,
    waker_port: place.waker_port,
  }
  const ready = { host: `ready.${config.domain}` }
  // Made when the first edge is started by us, not before: an adopted edge listens on the one it was given.
  let waker: WakerSocket | undefined
  return rolePart({
    home,
    name: edgePartName(place),
    role: 'edge',
    needs: ['nats'],
    settings,
    handDown: () => {
      waker ??= openWakerSocket(place.waker_port)
      return { fds: [waker.fd], env: { HANGAR_WAKER_FD: '3' } }
    },
    // HAProxy answers even while its edge is dead; a word from the waker means that the edge lives.
    probe: async () =>
      (await answers(`http://127.0.0.1:${place.waker_port}`, '/', ready)) > 0 &&
      (await answers(`http://127.0.0.1:${place.http_port}`, '/', ready)) > 0,
  })
}

export const edgeFolder = (home: Home, id: string): string => join(home.data('edges'), id)
