import { posix } from 'node:path'
import { z } from 'zod'
import { wireDurationMs } from '#core/units.ts'

/**
 * MachineConfig as the Machines API takes it. Validation only: what is stored and given back is the JSON that came in,
 * untouched (MCH-39), so nothing here has a default and every object keeps keys it does not know.
 */

const optional = <T extends z.ZodType>(schema: T) => schema.nullish()

/** A duration on the wire: `"15s"`, or nanoseconds. */
export const wireDuration = z.union([z.string(), z.number()]).refine(
  (value) => {
    try {
      return wireDurationMs(value) >= 0
    } catch {
      return false
    }
  },
  { message: 'must be a duration such as "10s" or "1m30s"' },
)

export const guestSchema = z.looseObject({
  cpus: optional(z.int().min(1).max(64)),
  cpu_kind: optional(z.enum(['shared', 'performance'])),
  memory_mb: optional(z.int().min(128)),
  max_memory_mb: optional(z.int()),
  gpus: optional(z.int().min(0)),
  gpu_kind: optional(z.string()),
  kernel_args: optional(z.array(z.string())),
  host_dedication_id: optional(z.string()),
  persist_rootfs: optional(z.enum(['never', 'restart', 'always', ''])),
})

export const checkSchema = z.looseObject({
  type: optional(z.enum(['tcp', 'http', ''])),
  port: optional(z.int().min(1).max(65535)),
  kind: optional(z.enum(['informational', 'readiness', ''])),
  interval: optional(wireDuration),
  timeout: optional(wireDuration),
  grace_period: optional(wireDuration),
  method: optional(z.string()),
  path: optional(z.string()),
  protocol: optional(z.enum(['http', 'https', ''])),
  tls_skip_verify: optional(z.boolean()),
  tls_server_name: optional(z.string()),
  headers: optional(z.array(z.looseObject({ name: z.string(), values: z.array(z.string()) }))),
})

export const handlerSchema = z.enum(['http', 'tls', 'pg_tls', 'proxy_proto', 'edge_http'])

export const servicePortSchema = z.looseObject({
  port: optional(z.int().min(1).max(65535)),
  start_port: optional(z.int().min(1).max(65535)),
  end_port: optional(z.int().min(1).max(65535)),
  handlers: optional(z.array(handlerSchema)),
  force_https: optional(z.boolean()),
  http_options: optional(z.looseObject({})),
  tls_options: optional(z.looseObject({})),
  proxy_proto_options: optional(z.looseObject({})),
})

export const concurrencySchema = z.looseObject({
  type: optional(z.enum(['connections', 'requests', ''])),
  soft_limit: optional(z.int().min(0)),
  hard_limit: optional(z.int().min(0)),
})

export const serviceSchema = z.looseObject({
  protocol: z.enum(['tcp', 'udp']),
  internal_port: z.int().min(1).max(65535),
  /** `false`/`true` are old spellings of off/stop. */
  autostop: optional(z.union([z.boolean(), z.enum(['off', 'stop', 'suspend'])])),
  autostart: optional(z.boolean()),
  min_machines_running: optional(z.int().min(0)),
  ports: optional(z.array(servicePortSchema)),
  checks: optional(z.array(checkSchema)),
  concurrency: optional(concurrencySchema),
  force_instance_key: optional(z.string()),
  force_instance_description: optional(z.string()),
})

export const restartPolicySchema = z.looseObject({
  policy: optional(z.enum(['no', 'never', 'always', 'on-failure', 'spot-price', ''])),
  max_retries: optional(z.int().min(0)),
})

export const fileSchema = z.looseObject({
  guest_path: z.string().startsWith('/', 'must be an absolute path'),
  /** Base64; decoded exactly once (CONF-4). */
  raw_value: optional(z.string()),
  /** The secret holds base64 (TOML-36). */
  secret_name: optional(z.string()),
  /** Octal permissions written as a decimal integer on the wire. */
  mode: optional(z.int().min(0).max(0o7777)),
})

const platformFolders = ['proc', 'sys', 'dev', '.fly']

/** Whether a path inside a machine is the root or a folder that the platform itself fills. */
export function isPlatformPath(path: string): boolean {
  const first = posix.normalize(path).split('/')[1] ?? ''
  return first === '' || platformFolders.includes(first)
}

export const mountSchema = z.looseObject({
  volume: optional(z.string()),
  /** That of the volume, whatever was sent: VOL-12. */
  name: optional(z.string()),
  path: z
    .string()
    .startsWith('/', 'must be an absolute path')
    .refine(
      (path) => !isPlatformPath(path),
      'must not be /, /proc, /sys, /dev, /.fly or below one',
    ),
  size_gb: optional(z.int()),
  /** VOL-10: grow by `add_size_gb` when this much is used, up to `size_gb_limit`; 0 is never. */
  extend_threshold_percent: optional(z.int().min(0).max(100)),
  add_size_gb: optional(z.int().min(0)),
  size_gb_limit: optional(z.int().min(0)),
})

/** `SIGSTOP` and `SIGHUP` both: CONF-13. */
export const stopSignals = [
  'SIGHUP',
  'SIGINT',
  'SIGQUIT',
  'SIGKILL',
  'SIGUSR1',
  'SIGUSR2',
  'SIGTERM',
  'SIGSTOP',
] as const

export const machineConfigSchema = z.looseObject({
  image: z.string().min(1),
  env: optional(z.record(z.string(), z.string())),
  init: optional(
    z.looseObject({
      exec: optional(z.array(z.string())),
      entrypoint: optional(z.array(z.string())),
      cmd: optional(z.array(z.string())),
      user: optional(z.string()),
      tty: optional(z.boolean()),
      swap_size_mb: optional(z.int()),
    }),
  ),
  guest: optional(guestSchema),
  size: optional(z.string()),
  services: optional(z.array(serviceSchema)),
  checks: optional(z.record(z.string(), checkSchema)),
  mounts: optional(z.array(mountSchema).max(1, 'a machine mounts at most one volume')),
  files: optional(z.array(fileSchema)),
  restart: optional(restartPolicySchema),
  stop_config: optional(
    z.looseObject({
      signal: optional(z.enum([...stopSignals, ''])),
      timeout: optional(wireDuration),
    }),
  ),
  auto_destroy: optional(z.boolean()),
  schedule: optional(z.enum(['hourly', 'daily', 'weekly', 'monthly', ''])),
  standbys: optional(z.array(z.string())),
  metadata: optional(z.record(z.string(), z.string())),
  dns: optional(z.looseObject({ skip_registration: optional(z.boolean()) })),
  statics: optional(z.array(z.looseObject({ guest_path: z.string(), url_prefix: z.string() }))),
  metrics: optional(z.looseObject({ port: optional(z.int()), path: optional(z.string()) })),
  processes: optional(z.array(z.looseObject({}))),
  containers: optional(z.array(z.looseObject({}))),
  rootfs: optional(
    z.looseObject({
      size_gb: optional(z.int()),
      fs_size_gb: optional(z.int()),
      persist: optional(z.enum(['never', 'restart', 'always', ''])),
    }),
  ),
})

export type MachineConfig = z.infer<typeof machineConfigSchema>
export type Guest = z.infer<typeof guestSchema>
export type Service = z.infer<typeof serviceSchema>
export type ServicePort = z.infer<typeof servicePortSchema>
export type Check = z.infer<typeof checkSchema>
export type MachineFile = z.infer<typeof fileSchema>
export type Mount = z.infer<typeof mountSchema>

export type Autostop = 'off' | 'stop' | 'suspend'

/** The effective autostop of a service. */
export function autostopOf(service: Service): Autostop {
  if (service.autostop === true) return 'stop'
  return service.autostop || 'off'
}

/** CONF-3: absent means true for the proxy. */
export function autostartOf(service: Service): boolean {
  return service.autostart !== false
}
