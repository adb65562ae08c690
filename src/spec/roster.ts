import { z } from 'zod'
import { machineStateSchema } from './machine.ts'
import { serviceSchema } from './machine-config.ts'

/**
 * What a host announces about one machine. Written by that host alone. A row's version is (host, counter): the host's
 * own ever-growing number, never a stream sequence. A reader keeps the row with the highest counter and drops the rest;
 * a row it cannot parse is skipped and counted.
 */
export const machineRowSchema = z.object({
  v: z.literal(1),
  host: z.string(),
  counter: z.int(),
  id: z.string(),
  app: z.string(),
  org: z.string(),
  network: z.int(),
  region: z.string(),
  primary_region: z.string().nullable(),
  process_group: z.string().nullable(),
  instance_id: z.string(),
  state: machineStateSchema,
  /** Reached by the edge of the same host. */
  ip4: z.string(),
  ip6: z.string(),
  /** Where the owning host's API answers: `unix:/path` or `http://address:port`. */
  host_api: z.string(),
  services: z.array(serviceSchema),
  /** Started and every gating check passes (CHK table): may take traffic. */
  ready: z.boolean(),
  cordoned: z.boolean(),
  /** False for scheduled machines and standbys: the proxy never starts them (PRX-45). */
  startable: z.boolean(),
  /** The host is taking the machine through an update or a restart: traffic waits for it instead of failing. */
  returning: z.boolean(),
  /** Milliseconds since the epoch. */
  changed_at: z.number(),
})
export type MachineRow = z.infer<typeof machineRowSchema>

/** A host's heartbeat: written again every second. */
export const hostRowSchema = z.object({
  v: z.literal(1),
  host: z.string(),
  /** The host's part of a private address (NET-1). */
  number: z.int(),
  region: z.string(),
  api: z.string(),
  counter: z.int(),
  at: z.number(),
  capacity: z.object({ cpus: z.int(), memory_mb: z.int() }),
  used: z.object({ cpus: z.int(), memory_mb: z.int(), machines: z.int() }),
})
export type HostRow = z.infer<typeof hostRowSchema>

/** What an edge says after it has put a row into effect, and each second as its own heartbeat (`machine` absent). */
export const edgeWordSchema = z.object({
  v: z.literal(1),
  edge: z.string(),
  region: z.string(),
  at: z.number(),
  machine: z.string().optional(),
  counter: z.int().optional(),
  /** Requests still in flight to the machine through this edge. */
  sessions: z.int().optional(),
})
export type EdgeWord = z.infer<typeof edgeWordSchema>
