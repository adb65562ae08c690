import { clampNote } from './fly-toml-rules.ts'
import { gpuSizes } from './guest-of-compute.ts'
import type { FlyConfig, FlyServicePort } from './fly-toml-schema.ts'

/** What is accepted and does nothing yet, one plain sentence each, and what is taken otherwise than written. */
export function warningsOf(config: FlyConfig): string[] {
  const idle = idleKeys(config).map((key) => `${key} is accepted but has no effect yet`)
  return [...idle, ...strategyWarning(config), ...serviceWarnings(config), ...buildWarning(config)]
}

function idleKeys(config: FlyConfig): string[] {
  const { build, deploy, experimental } = config
  const vms = config.vm ?? []
  const mounts = config.mounts ?? []
  const services = [
    ...(config.http_service ? [config.http_service] : []),
    ...(config.services ?? []),
  ]
  const ports = [
    ...(config.http_service ? [config.http_service] : []),
    ...(config.services ?? []).flatMap((service) => service.ports ?? []),
  ]
  const table: [string, boolean][] = [
    ['swap_size_mb', !!config.swap_size_mb],
    ['console_command', config.console_command !== undefined],
    ['host_dedication_id', !!config.host_dedication_id || vms.some((vm) => vm.host_dedication_id)],
    ['machine_config', (config.machine_config ?? experimental?.machine_config) !== undefined],
    ['container', config.container !== undefined],
    ['[[statics]]', !!config.statics?.length],
    ['[[metrics]]', !!config.metrics?.length],
    [
      'machine_checks',
      !!config.machine_checks?.length || services.some((one) => one.machine_checks?.length),
    ],
    ['build.builder', build?.builder !== undefined || !!build?.buildpacks?.length],
    ['build.builtin', build?.builtin !== undefined],
    ['build.settings', build?.settings !== undefined],
    ['build.compose', build?.compose !== undefined],
    ['build.compression', !!build?.compression || build?.compression_level !== undefined],
    ['deploy.seed_command', deploy?.seed_command !== undefined],
    ['[experimental] auto_rollback', !!experimental?.auto_rollback],
    ['[experimental] enable_consul', !!experimental?.enable_consul],
    ['[experimental] enable_etcd', !!experimental?.enable_etcd],
    ['[experimental] lazy_load_images', !!experimental?.lazy_load_images],
    ['gpus', vms.some((vm) => vm.gpus || vm.gpu_kind || gpuSizes[vm.size ?? ''])],
    ['kernel_args', vms.some((vm) => vm.kernel_args?.length)],
    ['snapshot_retention', mounts.some((mount) => mount.snapshot_retention !== undefined)],
    ['scheduled_snapshots', mounts.some((mount) => mount.scheduled_snapshots !== undefined)],
    ['auto_extend_size', mounts.some((mount) => mount.auto_extend_size_threshold !== undefined)],
    ['http_options', ports.some((one) => one.http_options !== undefined)],
    ['tls_options', ports.some((one) => one.tls_options !== undefined)],
    ['proxy_proto_options', ports.some((one) => 'proxy_proto_options' in one)],
  ]
  return table.filter(([, used]) => used).map(([key]) => key)
}

function strategyWarning(config: FlyConfig): string[] {
  const strategy = config.deploy?.strategy
  if (strategy !== 'canary' && strategy !== 'bluegreen') return []
  return [`deploy.strategy "${strategy}" is accepted but cannot be deployed yet; use "rolling"`]
}

/** Ports that the edge serves are 80 and 443 with the http handler. TOML-51: no port at all. CHK-2. */
function serviceWarnings(config: FlyConfig): string[] {
  const found: string[] = []
  for (const [index, service] of (config.services ?? []).entries()) {
    const name = `services[${index}]`
    if (!service.ports?.length) found.push(`${name} has no ports, so nothing reaches it`)
    if (service.protocol === 'udp') {
      found.push(`${name}: protocol "udp" is accepted but has no effect yet`)
    } else if (service.ports?.some((port) => !isWebPort(port))) {
      found.push(`${name}: a port other than HTTP on 80 and 443 is accepted but has no effect yet`)
    }
  }
  const checks = [
    ...(config.http_service?.checks ?? []).map((check) => ['http_service.checks', check] as const),
    ...(config.services ?? []).flatMap((service, index) =>
      [...(service.http_checks ?? []), ...(service.tcp_checks ?? [])].map(
        (check) => [`services[${index}] check`, check] as const,
      ),
    ),
  ]
  for (const [name, check] of checks) {
    for (const key of ['interval', 'timeout', 'grace_period'] as const) {
      const note = clampNote(check[key], key)
      if (note) found.push(`${name}: ${key} ${note}`)
    }
  }
  return [...new Set(found)]
}

const isWebPort = (port: FlyServicePort): boolean =>
  (port.port === 80 || port.port === 443) && !!port.handlers?.includes('http')

/** TOML-20: more than one way to an image is a warning. */
function buildWarning({ build }: FlyConfig): string[] {
  if (!build) return []
  const ways = [
    build.image !== undefined && 'image',
    (build.builder !== undefined || !!build.buildpacks?.length) && 'builder',
    (build.dockerfile !== undefined || build['build-target'] !== undefined) && 'dockerfile',
    build.builtin !== undefined && 'builtin',
  ].filter((way) => way !== false)
  if (ways.length < 2) return []
  return [`[build] names more than one way to an image (${ways.join(', ')}); ${ways[0]} is used`]
}
