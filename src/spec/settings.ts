import { z } from 'zod'
import { regionCodePattern } from './regions.ts'
import { runtimeWishSchema } from './runtime.ts'

/** What an operator may write in `$HANGAR_HOME/hangar.toml` (or `hangar up --config FILE`). Units are in the names. */
export const cloudConfigSchema = z.strictObject({
  domain: z.string().default('hangar.localhost'),
  regions: z
    .array(z.string().regex(regionCodePattern, 'three lowercase letters'))
    .min(1)
    .default(['ord']),
  hosts_per_region: z.int().min(1).max(64).default(1),
  /** How machines run that do not choose for themselves; `auto` probes, see `hangar doctor`. */
  runtime: runtimeWishSchema.default('auto'),
  /** How often each real CPU is promised: large machines fit on a small one, and share it when they are busy. */
  cpu_overcommit: z.int().min(1).max(64).default(8),
  /** Wanted ports; a taken one is replaced by the next free one and the choice is kept. */
  ports: z
    .strictObject({
      http: z.int().default(80),
      https: z.int().default(443),
      api: z.int().default(4280),
      registry: z.int().default(4285),
      nats: z.int().default(4222),
    })
    .prefault({}),
  /** Registry host → endpoints asked first, in order, before the registry itself. `docker.io` is the usual key. */
  mirrors: z.record(z.string(), z.array(z.url())).default({}),
  /** Registry host → credentials for pulls of private images. */
  registries: z
    .record(z.string(), z.object({ username: z.string(), password: z.string() }))
    .default({}),
  edge: z
    .strictObject({
      slots: z.int().min(16).max(20_000).default(2_000),
      autostop_interval_ms: z.int().min(200).default(300_000),
      hold_ms: z.int().min(100).default(60_000),
    })
    .prefault({}),
  database_url: z.string().optional(),
})
export type CloudConfig = z.infer<typeof cloudConfigSchema>

const registryAccessSchema = z.object({
  /** `host:port` as it stands in an image reference. */
  host: z.string(),
  username: z.string(),
  password: z.string(),
  /** Plain HTTP. */
  insecure: z.boolean(),
})
export type RegistryAccess = z.infer<typeof registryAccessSchema>

/** Written by the embedded cloud (or an operator) for one host; `hangar host --settings FILE`. */
export const hostSettingsSchema = z.object({
  id: z.string().regex(/^[a-z0-9-]{1,32}$/),
  /** 1 to 2^32-1, unique for ever: the host's part of every private address. */
  number: z.int().min(1).max(0xffffffff),
  region: z.string(),
  dir: z.string(),
  /** `unix:/path` or `http://address:port`: where its API listens. */
  listen: z.string(),
  nats_url: z.string(),
  cluster_key_file: z.string(),
  runtime: runtimeWishSchema,
  /** The guests' kernel, once for all hosts; kept from one cloud to the next, and may be removed at any time. */
  kernel_dir: z.string(),
  cpu_overcommit: z.int().min(1),
  mirrors: z.record(z.string(), z.array(z.string())),
  registries: z.array(registryAccessSchema),
  /** IPv4 block for machines, at least a /16: private to this host, never routed off it. */
  ipv4_block: z.string(),
})
export type HostSettings = z.infer<typeof hostSettingsSchema>

/** `hangar edge --settings FILE`. */
export const edgeSettingsSchema = z.object({
  id: z.string(),
  region: z.string(),
  dir: z.string(),
  domain: z.string(),
  nats_url: z.string(),
  cluster_key_file: z.string(),
  http_port: z.int(),
  https_port: z.int(),
  slots: z.int(),
  autostop_interval_ms: z.int(),
  hold_ms: z.int(),
  /** The local certificate authority: PEM files. */
  ca_cert_file: z.string(),
  ca_key_file: z.string(),
  /**
   * Where HAProxy finds the waker, on 127.0.0.1. The edge binds it unless a listening descriptor is handed down
   * (HANGAR_WAKER_FD). A port and not a unix socket: HAProxy waits a second before it tries a refused port again, but
   * uses up its retries at once on a socket that nobody holds.
   */
  waker_port: z.int(),
})
export type EdgeSettings = z.infer<typeof edgeSettingsSchema>

/** `hangar control --settings FILE`. */
export const controlSettingsSchema = z.object({
  dir: z.string(),
  database_url: z.string(),
  nats_url: z.string(),
  cluster_key_file: z.string(),
  /** Address and port the API binds. */
  listen: z.object({ address: z.string(), port: z.int() }),
  domain: z.string(),
  http_port: z.int(),
  https_port: z.int(),
  /** `host:port` of the embedded registry as it stands in image references. */
  registry_host: z.string(),
  /** ECDSA P-256 key and self-signed certificate (PEM) that sign registry tokens; the registry trusts the certificate. */
  registry_token_key_file: z.string(),
  registry_token_cert_file: z.string(),
  /** `unix:///path` of the embedded dockerd. */
  docker_host: z.string(),
  regions: z.array(z.string()),
  /** The first token is written here, mode 0600. */
  first_token_file: z.string(),
})
export type ControlSettings = z.infer<typeof controlSettingsSchema>
