import { Fault } from '#core/fault.ts'
import type { FlyCheck, FlyConfig, FlyFile, FlyMount, FlyService } from './fly-toml-schema.ts'
import { guestOfCompute } from './guest-of-compute.ts'
import type { Check, MachineConfig, MachineFile, Mount, Service } from './machine-config.ts'
import { belongsTo, computeFor } from './process-groups.ts'
import { shellSplit } from './shell-split.ts'

export { belongsTo, computeFor, defaultGroup, processGroups } from './process-groups.ts'

/** MCH-85: groups of machines that live for one command; a deploy leaves them alone (DEP-2). */
export const releaseGroup = 'fly_app_release_command'
export const ephemeralGroups: readonly string[] = [
  releaseGroup,
  'fly_app_console',
  'fly_app_test_machine_command',
]

/** Metadata that changes with every deploy and says nothing about what runs. */
export const releaseMetadataKeys = [
  'fly_release_id',
  'fly_release_version',
  'fly_flyctl_version',
] as const

export interface ReleaseWords {
  image: string
  releaseId: string
  releaseVersion: number
  hangarVersion: string
  /** The config of the machine that is updated: what fly.toml does not manage is kept from it (DEP-4). */
  base?: MachineConfig | undefined
}

/**
 * The config of one group's machines, as the tools that people know would send it: absent stays absent, durations are
 * strings, `[http_service]` is one service on 80 and 443. Throws `invalid` when a file's content was not read in.
 * TOML-30, 36, 40, 51, 60, 61, 65, 70, 71; MCH-85.
 */
export function machineConfigFor(
  config: FlyConfig,
  group: string,
  words: ReleaseWords,
): MachineConfig {
  const mine = <T extends { processes?: string[] | undefined }>(sections: T[] | undefined): T[] =>
    (sections ?? []).filter((section) => belongsTo(config, group, section))
  const compute = computeFor(config, group)
  const guest = compute ? guestOfCompute(compute, config.host_dedication_id) : words.base?.guest
  const restart = mine(config.restart).at(-1)
  const metrics = mine(config.metrics)[0]
  const services = servicesFor(config, group)
  const checks = checksFor(config, group)
  const files = mine(config.files).map(fileOf)
  const mounts = mine(config.mounts).map(mountOf)
  return {
    ...keptFrom(words.base),
    image: words.image,
    env: envFor(config, group),
    init: initFor(config, group, words.base),
    ...(guest ? { guest } : {}),
    metadata: {
      ...words.base?.metadata,
      fly_flyctl_version: words.hangarVersion,
      fly_platform_version: 'v2',
      fly_process_group: group,
      fly_release_id: words.releaseId,
      fly_release_version: String(words.releaseVersion),
    },
    ...(services.length > 0 ? { services } : {}),
    ...(Object.keys(checks).length > 0 ? { checks } : {}),
    ...(files.length > 0 ? { files } : {}),
    ...(mounts.length > 0 ? { mounts } : {}),
    ...stopConfigOf(config),
    ...(restart ? { restart: restartOf(restart) } : {}),
    ...(config.statics?.length ? { statics: config.statics.map(staticOf) } : {}),
    ...(metrics ? { metrics: metricsOf(metrics) } : {}),
  }
}

/**
 * DEP-11: the machine that runs the release command. The guest is what `deploy.release_command_vm` says; otherwise the
 * caller chooses one (DEP-14).
 */
export function releaseCommandConfig(
  config: FlyConfig,
  words: ReleaseWords,
): MachineConfig | undefined {
  const command = shellSplit(config.deploy?.release_command ?? '')
  if (!command || command.length === 0) return undefined
  const compute = config.deploy?.release_command_vm
  const entrypoint = config.experimental?.entrypoint
  return {
    image: words.image,
    env: { ...envFor(config, releaseGroup), RELEASE_COMMAND: '1' },
    init: {
      cmd: command,
      ...(entrypoint ? { entrypoint } : {}),
      ...(config.swap_size_mb === undefined ? {} : { swap_size_mb: config.swap_size_mb }),
    },
    ...(compute ? { guest: guestOfCompute(compute, config.host_dedication_id) } : {}),
    restart: { policy: 'no' },
    auto_destroy: true,
    dns: { skip_registration: true },
    metadata: {
      fly_flyctl_version: words.hangarVersion,
      fly_platform_version: 'v2',
      fly_process_group: releaseGroup,
      fly_release_id: words.releaseId,
      fly_release_version: String(words.releaseVersion),
    },
    ...stopConfigOf(config),
    ...(config.files?.length ? { files: config.files.map(fileOf) } : {}),
  }
}

const managedKeys: ReadonlySet<string> = new Set(
  'image env init guest size metadata services checks files mounts stop_config restart statics metrics'.split(
    ' ',
  ),
)

/** Everything that fly.toml manages is dropped from the old config; the rest is kept. DEP-4. */
function keptFrom(base: MachineConfig | undefined): Partial<MachineConfig> {
  if (!base) return {}
  return Object.fromEntries(Object.entries(base).filter(([key]) => !managedKeys.has(key)))
}

/** TOML-30: the platform's names are written over the user's. */
function envFor(config: FlyConfig, group: string): Record<string, string> {
  return {
    ...config.env,
    FLY_PROCESS_GROUP: group,
    ...(config.primary_region ? { PRIMARY_REGION: config.primary_region } : {}),
  }
}

/** TOML-60, TOML-75. */
function initFor(config: FlyConfig, group: string, base: MachineConfig | undefined) {
  const { cmd: _c, entrypoint: _e, exec: _x, swap_size_mb: _s, ...kept } = base?.init ?? {}
  const { experimental } = config
  const command = shellSplit(config.processes?.[group] ?? '')
  const cmd = command?.length ? command : experimental?.cmd
  return {
    ...kept,
    ...(cmd?.length ? { cmd } : {}),
    ...(experimental?.entrypoint?.length ? { entrypoint: experimental.entrypoint } : {}),
    ...(experimental?.exec?.length ? { exec: experimental.exec } : {}),
    ...(config.swap_size_mb === undefined ? {} : { swap_size_mb: config.swap_size_mb }),
  }
}

function servicesFor(config: FlyConfig, group: string): Service[] {
  const http = config.http_service
  return [
    ...(http && belongsTo(config, group, http) ? [httpServiceOf(http)] : []),
    ...(config.services ?? [])
      .filter((service) => belongsTo(config, group, service))
      .map(serviceOf),
  ]
}

/** TOML-40. */
function httpServiceOf(http: NonNullable<FlyConfig['http_service']>): Service {
  const options = http.http_options ? { http_options: http.http_options } : {}
  return {
    protocol: 'tcp',
    internal_port: http.internal_port,
    ...sleepOf(http),
    ports: [
      {
        port: 80,
        handlers: ['http'],
        ...(http.force_https ? { force_https: true } : {}),
        ...options,
      },
      {
        port: 443,
        handlers: ['http', 'tls'],
        ...(http.tls_options ? { tls_options: http.tls_options } : {}),
        ...options,
      },
    ],
    ...(http.checks?.length
      ? { checks: http.checks.map((check) => probeOf({ ...check, type: 'http' })) }
      : {}),
    ...concurrencyOf(http),
  }
}

/** TOML-50, TOML-51. */
function serviceOf(service: FlyService): Service {
  const checks = [
    ...(service.tcp_checks ?? []).map((check) => probeOf({ ...check, type: 'tcp' })),
    ...(service.http_checks ?? []).map((check) => probeOf({ ...check, type: 'http' })),
  ]
  const ports = (service.ports ?? []).map(
    ({ force_https: force, ...port }) =>
      withoutUndefined({ ...port, ...(force ? { force_https: true } : {}) }) as NonNullable<
        Service['ports']
      >[number],
  )
  return {
    protocol: service.protocol,
    internal_port: service.internal_port,
    ...sleepOf(service),
    ...(ports.length > 0 ? { ports } : {}),
    ...(checks.length > 0 ? { checks } : {}),
    ...concurrencyOf(service),
  }
}

/** The wire keeps the older spelling of off and stop, as clients send it. */
function sleepOf(
  service: Pick<FlyService, 'auto_stop_machines' | 'auto_start_machines' | 'min_machines_running'>,
): Pick<Service, 'autostop' | 'autostart' | 'min_machines_running'> {
  const { auto_stop_machines: stop, auto_start_machines: start } = service
  const minimum = service.min_machines_running
  return {
    ...(stop === undefined ? {} : { autostop: stop === 'suspend' ? stop : stop === 'stop' }),
    ...(start === undefined ? {} : { autostart: start }),
    ...(minimum === undefined ? {} : { min_machines_running: minimum }),
  }
}

function concurrencyOf(service: Pick<FlyService, 'concurrency'>): Pick<Service, 'concurrency'> {
  const { concurrency } = service
  if (!concurrency) return {}
  return {
    concurrency: {
      ...(concurrency.type ? { type: concurrency.type } : {}),
      ...(concurrency.hard_limit ? { hard_limit: concurrency.hard_limit } : {}),
      ...(concurrency.soft_limit ? { soft_limit: concurrency.soft_limit } : {}),
    },
  }
}

/** TOML-71: without a port, the one of the group's http_service. */
function checksFor(config: FlyConfig, group: string): Record<string, Check> {
  const mine = Object.entries(config.checks ?? {}).filter(([, check]) =>
    belongsTo(config, group, check),
  )
  return Object.fromEntries(
    mine.map(([name, check]) => {
      const port = check.port ?? config.http_service?.internal_port
      const method = check.method?.toUpperCase()
      return [name, probeOf({ ...check, ...(port ? { port } : {}), ...(method ? { method } : {}) })]
    }),
  )
}

/** CHK-1: headers are a list of names with values on the wire. */
function probeOf(check: Partial<FlyCheck> & { type: 'tcp' | 'http' }): Check {
  const { processes: _processes, headers, ...rest } = check
  const list = Object.entries(headers ?? {}).map(([name, value]) => ({ name, values: [value] }))
  return withoutUndefined({ ...rest, ...(list.length > 0 ? { headers: list } : {}) }) as Check
}

/** CONF-4: the text of `raw_value` is encoded here, once; the server decodes once. */
function fileOf(file: FlyFile): MachineFile {
  const { guest_path } = file
  if (file.secret_name) return { guest_path, secret_name: file.secret_name }
  if (file.raw_base64 !== undefined) return { guest_path, raw_value: file.raw_base64 }
  if (file.local_path) {
    throw new Fault(
      'invalid',
      `[[files]] ${guest_path}: the content of ${file.local_path} was not sent along; deploy from the folder that holds it`,
    )
  }
  return { guest_path, raw_value: Buffer.from(file.raw_value ?? '').toString('base64') }
}

function mountOf(mount: FlyMount): Mount {
  return {
    path: mount.destination,
    name: mount.source,
    ...(mount.auto_extend_size_threshold
      ? { extend_threshold_percent: mount.auto_extend_size_threshold }
      : {}),
    ...(mount.auto_extend_size_increment ? { add_size_gb: mount.auto_extend_size_increment } : {}),
    ...(mount.auto_extend_size_limit ? { size_gb_limit: mount.auto_extend_size_limit } : {}),
  }
}

function stopConfigOf(config: FlyConfig): Pick<MachineConfig, 'stop_config'> {
  const { kill_signal: signal, kill_timeout: timeout } = config
  if (signal === undefined && timeout === undefined) return {}
  return {
    stop_config: { ...(timeout ? { timeout } : {}), ...(signal ? { signal } : {}) },
  }
}

/** TOML-70. */
function restartOf(restart: NonNullable<FlyConfig['restart']>[number]) {
  return {
    policy: restart.policy === 'never' ? ('no' as const) : restart.policy,
    ...(restart.retries ? { max_retries: restart.retries } : {}),
  }
}

const metricsOf = ({ port, path, https }: NonNullable<FlyConfig['metrics']>[number]) => ({
  ...(port ? { port } : {}),
  ...(path ? { path } : {}),
  ...(https ? { https } : {}),
})

const staticOf = (one: NonNullable<FlyConfig['statics']>[number]) => ({
  guest_path: one.guest_path,
  url_prefix: one.url_prefix,
  tigris_bucket: one.tigris_bucket ?? '',
  index_document: one.index_document ?? '',
})

function withoutUndefined(value: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(Object.entries(value).filter(([, item]) => item !== undefined))
}
