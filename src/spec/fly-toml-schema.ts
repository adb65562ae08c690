import { z } from 'zod'
import { limits } from '#core/limits.ts'
import { appNameSchema } from './app.ts'
import * as is from './fly-toml-fields.ts'
import { regionCodePattern } from './regions.ts'
import { stopSignals } from './machine-config.ts'

/** fly.toml in its present spelling (`normalizeDefinition` brings older ones there), section by section. TOML-1…75. */

const processes = is.words.optional()

const appName = is.text.superRefine((name, context) => {
  const result = appNameSchema.safeParse(name)
  if (result.success) return
  context.addIssue({ code: 'custom', message: result.error.issues[0]?.message ?? 'is no app name' })
})

const region = is.text.superRefine((code, context) => {
  if (regionCodePattern.test(code)) return
  context.addIssue({
    code: 'custom',
    message: `must be one region code of three lowercase letters such as "ord", not ${is.shown(code)}`,
  })
})

const killTimeout = is.duration('s', { maxMs: limits.killTimeoutSecondsMax * 1000 })

const checkTimes = {
  interval: is.duration('ms').optional(),
  timeout: is.duration('ms').optional(),
  grace_period: is.duration('ms').optional(),
}

const httpProbe = {
  method: is.text.optional(),
  path: is.text.optional(),
  protocol: is.oneOf(['http', 'https']).optional(),
  tls_skip_verify: is.flag.optional(),
  tls_server_name: is.text.optional(),
  headers: is.textMap.optional(),
}

const machineCheck = is.section({
  command: is.words.optional(),
  image: is.text.optional(),
  entrypoint: is.words.optional(),
  kill_signal: is.oneOf(stopSignals).optional(),
  kill_timeout: killTimeout.optional(),
})

const concurrency = is.section({
  type: is.oneOf(['connections', 'requests', '']).optional(),
  soft_limit: is.count.optional(),
  hard_limit: is.count.optional(),
})

const tlsOptions = is.section({
  alpn: is.words.optional(),
  versions: is.words.optional(),
  default_self_signed: is.flag.optional(),
})

const headerValue = z.union([z.string(), z.array(z.string()), z.literal(false)], {
  error: 'must be a string, a list of strings, or false to remove the header',
})

const httpOptions = is.section({
  compress: is.flag.optional(),
  h2_backend: is.flag.optional(),
  idle_timeout: is.count.optional(),
  headers_read_timeout: is.count.optional(),
  response: is
    .section({ headers: is.named(headerValue).optional(), pristine: is.flag.optional() })
    .optional(),
  replay_cache: is
    .list(
      is.section({
        path_prefix: is.text,
        ttl_seconds: is.whole({ min: 10, max: Number.MAX_SAFE_INTEGER }),
        type: is.oneOf(['cookie', 'header']),
        name: is.text,
        allow_bypass: is.flag.optional(),
      }),
    )
    .optional(),
})

/** What `[http_service]` and `[[services]]` share. TOML-40, TOML-50. */
const serviceBase = {
  auto_stop_machines: is.autostop.optional(),
  auto_start_machines: is.flag.optional(),
  min_machines_running: is.count.optional(),
  processes,
  concurrency: concurrency.optional(),
  machine_checks: is.list(machineCheck).optional(),
}

const httpService = is.section({
  ...serviceBase,
  internal_port: is.port.prefault(8080),
  force_https: is.flag.optional(),
  tls_options: tlsOptions.optional(),
  http_options: httpOptions.optional(),
  checks: is.list(is.section({ ...checkTimes, ...httpProbe })).optional(),
})

const servicePort = is.section({
  port: is.port.optional(),
  start_port: is.port.optional(),
  end_port: is.port.optional(),
  handlers: is.words.optional(),
  force_https: is.flag.optional(),
  tls_options: tlsOptions.optional(),
  http_options: httpOptions.optional(),
  proxy_proto_options: is.section({ version: is.oneOf(['v1', 'v2', '']).optional() }).optional(),
})

const service = is.section({
  ...serviceBase,
  protocol: is.oneOf(['tcp', 'udp']).prefault('tcp'),
  internal_port: is.port,
  ports: is.list(servicePort).optional(),
  tcp_checks: is.list(is.section(checkTimes)).optional(),
  http_checks: is.list(is.section({ ...checkTimes, ...httpProbe })).optional(),
})

/** TOML-71; CHK-2: a top-level check is bounded, not clamped. */
const toplevelCheck = is.section({
  ...httpProbe,
  type: is.oneOf(['tcp', 'http']),
  port: is.port.optional(),
  interval: is.duration('ms', { minMs: 2000 }).optional(),
  timeout: is.duration('ms', { maxMs: 60_000 }).optional(),
  grace_period: is.duration('ms').optional(),
  kind: is.oneOf(['informational', 'readiness']).optional(),
  processes,
})

/** TOML-65. */
const compute = is.section({
  size: is.text.optional(),
  memory: is.size('mb').optional(),
  memory_mb: is.count.optional(),
  max_memory_mb: is.count.optional(),
  cpus: is.count.optional(),
  cpu_kind: is.oneOf(['shared', 'performance']).optional(),
  gpus: is.count.optional(),
  gpu_kind: is.text.optional(),
  kernel_args: is.words.optional(),
  host_dedication_id: is.text.optional(),
  persist_rootfs: is.oneOf(['never', 'restart', 'always', '']).optional(),
  processes,
})

const mount = is.section({
  source: is.text,
  destination: is.text,
  initial_size: is.size('gb').optional(),
  snapshot_retention: is.whole({ min: 1, max: 60 }).optional(),
  scheduled_snapshots: is.flag.optional(),
  auto_extend_size_threshold: is.whole({ min: 50, max: 99 }).optional(),
  auto_extend_size_increment: is.size('gb').optional(),
  auto_extend_size_limit: is.size('gb').optional(),
  processes,
})

const file = is.section({
  guest_path: is.text,
  raw_value: is.text.optional(),
  local_path: is.text.optional(),
  secret_name: is.text.optional(),
  /** The content of `local_path` in base64, put there by the client that reads it (`inlineFiles`). */
  raw_base64: is.text.optional(),
  processes,
})

/** TOML-20. */
const build = is.section({
  builder: is.text.optional(),
  buildpacks: is.words.optional(),
  image: is.text.optional(),
  dockerfile: is.text.optional(),
  ignorefile: is.text.optional(),
  'build-target': is.text.optional(),
  args: is.textMap.optional(),
  settings: z.unknown().optional(),
  builtin: is.text.optional(),
  compose: is.section({ file: is.text.optional() }).optional(),
  compression: is.oneOf(['gzip', 'zstd', '']).optional(),
  compression_level: is.whole({ min: 0, max: 9 }).optional(),
})

const deploy = is.section({
  strategy: is.oneOf(['rolling', 'immediate', 'canary', 'bluegreen', '']).optional(),
  max_unavailable: is.positive.optional(),
  wait_timeout: is.duration('s').optional(),
  release_command: is.text.optional(),
  release_command_timeout: is.duration('s').optional(),
  release_command_vm: compute.optional(),
  seed_command: is.text.optional(),
})

const experimental = is.section({
  cmd: is.words.optional(),
  entrypoint: is.words.optional(),
  exec: is.words.optional(),
  auto_rollback: is.flag.optional(),
  enable_consul: is.flag.optional(),
  enable_etcd: is.flag.optional(),
  lazy_load_images: is.flag.optional(),
  attached: z.unknown().optional(),
  machine_config: is.text.optional(),
  kill_timeout: killTimeout.optional(),
  metrics_port: is.port.optional(),
  metrics_path: is.text.optional(),
})

export const flyConfigSchema = is.section({
  app: appName.optional(),
  primary_region: region.optional(),
  kill_signal: is.oneOf(stopSignals).optional(),
  kill_timeout: killTimeout.optional(),
  swap_size_mb: is.count.optional(),
  console_command: is.text.optional(),
  host_dedication_id: is.text.optional(),
  machine_config: is.text.optional(),
  container: is.text.optional(),
  experimental: experimental.optional(),
  build: build.optional(),
  deploy: deploy.optional(),
  env: is.textMap.optional(),
  processes: is.textMap.optional(),
  mounts: is.list(mount).optional(),
  http_service: httpService.optional(),
  services: is.list(service).optional(),
  checks: is.named(toplevelCheck).optional(),
  files: is.list(file).optional(),
  machine_checks: is.list(machineCheck).optional(),
  restart: is
    .list(
      is.section({
        policy: is.oneOf(['always', 'on-failure', 'never']),
        retries: is.count.optional(),
        processes,
      }),
    )
    .optional(),
  vm: is.list(compute).optional(),
  statics: is
    .list(
      is.section({
        guest_path: is.text,
        url_prefix: is.text,
        tigris_bucket: is.text.optional(),
        index_document: is.text.optional(),
      }),
    )
    .optional(),
  metrics: is
    .list(
      is.section({
        port: is.port.optional(),
        path: is.text.optional(),
        https: is.flag.optional(),
        processes,
      }),
    )
    .optional(),
})

/** A fly.toml that is right: present spellings, durations as Go strings, sizes in MB (`memory`) or GB (mounts). */
export type FlyConfig = z.infer<typeof flyConfigSchema>
export type FlyHttpService = NonNullable<FlyConfig['http_service']>
export type FlyService = NonNullable<FlyConfig['services']>[number]
export type FlyServicePort = NonNullable<FlyService['ports']>[number]
export type FlyCompute = NonNullable<FlyConfig['vm']>[number]
export type FlyMount = NonNullable<FlyConfig['mounts']>[number]
export type FlyFile = NonNullable<FlyConfig['files']>[number]
export type FlyCheck = NonNullable<FlyConfig['checks']>[string]
