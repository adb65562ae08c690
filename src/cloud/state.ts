import { z } from 'zod'
import { Fault } from '#core/fault.ts'
import { readTextFile, writeFileAtomic } from '#sys/files.ts'
import { runtimeWishSchema } from '#spec/runtime.ts'
import { cloudConfigSchema } from '#spec/settings.ts'
import type { Home } from './home.ts'

/** What `hangar up` was told on its command line; it wins over hangar.toml and is kept. */
export const overridesSchema = z.strictObject({
  regions: z.array(z.string()).optional(),
  hosts_per_region: z.int().optional(),
  runtime: runtimeWishSchema.optional(),
  mirrors: z.record(z.string(), z.array(z.string())).optional(),
  autostop_interval_ms: z.int().optional(),
  config_file: z.string().optional(),
  database_url: z.string().optional(),
})
export type Overrides = z.infer<typeof overridesSchema>

const portsSchema = z.object({
  http: z.int(),
  https: z.int(),
  api: z.int(),
  registry: z.int(),
  nats: z.int(),
})
export type Ports = z.infer<typeof portsSchema>

const placeSchema = z.object({
  /** Names the host and its edge; unique among all clouds of a machine, because namespaces and rules are named by it. */
  id: z.string(),
  number: z.int(),
  region: z.string(),
  ipv4_block: z.string(),
  http_port: z.int(),
  https_port: z.int(),
  waker_port: z.int(),
})
export type Place = z.infer<typeof placeSchema>

/** `state.json`: what this cloud chose for itself, kept for ever. */
export const cloudStateSchema = z.object({
  version: z.literal(1),
  cloud_id: z.string(),
  domain: z.string(),
  ports: portsSchema,
  /** What the configuration wanted when the ports were chosen: another wish chooses anew. */
  ports_wanted: cloudConfigSchema.shape.ports,
  places: z.array(placeSchema),
  overrides: overridesSchema,
})
export type CloudState = z.infer<typeof cloudStateSchema>

/** The kept state, or undefined in a new home. A state that does not parse is a Fault, never overwritten. */
export function readState(home: Home): CloudState | undefined {
  const text = readTextFile(home.state)
  if (text === undefined) return undefined
  try {
    return cloudStateSchema.parse(JSON.parse(text))
  } catch (cause) {
    throw new Fault(
      'invalid',
      `${home.state} cannot be read: ${cause instanceof z.ZodError ? z.prettifyError(cause) : String(cause)}`,
      { cause },
    )
  }
}

export function writeState(home: Home, state: CloudState): void {
  writeFileAtomic(home.state, `${JSON.stringify(cloudStateSchema.parse(state), null, 2)}\n`, 0o600)
}
