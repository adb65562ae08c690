import { z } from 'zod'
import { machineConfigSchema } from './machine-config.ts'
import { machineRuntimeSchema } from './runtime.ts'

/** MCH-11. */
export const machineStates = [
  'created',
  'starting',
  'started',
  'stopping',
  'stopped',
  'suspending',
  'suspended',
  'restarting',
  'updating',
  'failed',
  'destroying',
  'destroyed',
] as const
export const machineStateSchema = z.enum(machineStates)
export type MachineState = z.infer<typeof machineStateSchema>

/** States in which a machine rests; `settled` in a wait means any of them. MCH-51. */
export const settledStates: readonly MachineState[] = [
  'created',
  'started',
  'stopped',
  'suspended',
  'failed',
  'destroyed',
]

export const exitEventSchema = z.object({
  exit_code: z.int(),
  guest_exit_code: z.int(),
  guest_signal: z.int(),
  signal: z.int(),
  oom_killed: z.boolean(),
  requested_stop: z.boolean(),
  restarting: z.boolean(),
  exited_at: z.string(),
  error: z.string().optional(),
})
export type ExitEvent = z.infer<typeof exitEventSchema>

/** MCH-15. Lists are newest first. */
export const machineEventSchema = z.object({
  id: z.string(),
  type: z.enum([
    'launch',
    'start',
    'exit',
    'stop',
    'suspend',
    'resume',
    'update',
    'restart',
    'destroy',
    'cordon',
    'uncordon',
    'extend',
  ]),
  status: z.string(),
  source: z.enum(['flyd', 'user', 'proxy']),
  /** Milliseconds since the epoch. */
  timestamp: z.number(),
  request: z
    .looseObject({
      exit_event: exitEventSchema.optional(),
      restart_count: z.int().optional(),
      error: z.string().optional(),
    })
    .optional(),
})
export type MachineEvent = z.infer<typeof machineEventSchema>

/** CHK-6. */
export const checkStatusSchema = z.object({
  name: z.string(),
  status: z.enum(['passing', 'warning', 'critical']),
  output: z.string(),
  /** RFC 3339, the last change of status. */
  updated_at: z.string(),
})
export type CheckStatus = z.infer<typeof checkStatusSchema>

export const imageRefSchema = z.object({
  registry: z.string(),
  repository: z.string(),
  tag: z.string(),
  digest: z.string(),
  labels: z.record(z.string(), z.string()).nullable(),
})
export type ImageRef = z.infer<typeof imageRefSchema>

/** MCH-10. `nonce` is added only to the answer of the create that took the lease, never to a read. */
export const machineSchema = z.object({
  id: z.string(),
  name: z.string(),
  state: machineStateSchema,
  region: z.string(),
  image_ref: imageRefSchema,
  instance_id: z.string(),
  version: z.string(),
  private_ip: z.string(),
  created_at: z.string(),
  updated_at: z.string(),
  config: machineConfigSchema,
  events: z.array(machineEventSchema),
  checks: z.array(checkStatusSchema),
  cordoned: z.boolean(),
  host_status: z.enum(['ok', 'unknown', 'unreachable']),
  nonce: z.string().optional(),
  /** Ours, beside MCH-10: which wall it is behind. */
  runtime: machineRuntimeSchema.optional(),
})
export type Machine = z.infer<typeof machineSchema>

export const leaseSchema = z.object({
  nonce: z.string(),
  /** Unix seconds. */
  expires_at: z.int(),
  owner: z.string(),
  description: z.string(),
  version: z.string(),
})
export type Lease = z.infer<typeof leaseSchema>

/** The header that carries a lease's nonce. MCH-55. */
export const leaseNonceHeader = 'fly-machine-lease-nonce'

/** MCH-20: the body of a create; an update takes the same, `name` and `region` ignored, with `current_version`. */
export const machineInputSchema = z.object({
  name: z
    .string()
    .regex(/^[a-z0-9][a-z0-9-]{0,62}$/i, 'must be letters, digits and dashes, at most 63')
    .nullish()
    .or(z.literal('')),
  region: z.string().nullish(),
  config: machineConfigSchema,
  skip_launch: z.boolean().nullish(),
  skip_service_registration: z.boolean().nullish(),
  skip_secrets: z.boolean().nullish(),
  min_secrets_version: z.int().nullish(),
  lease_ttl: z.int().nullish(),
  current_version: z.string().nullish(),
})
export type MachineInput = z.infer<typeof machineInputSchema>

/** One value of the metadata, or of a secret. MCH-85, SEC-4. */
export const textValueSchema = z.object({ value: z.string() })

/** Both may stand in the query instead. MCH-55. */
export const leaseInputSchema = z.object({
  ttl: z.union([z.number(), z.string()]).nullish(),
  description: z.string().nullish(),
})

/** A verb's body; what is absent is the machine's own. */
export const verbInputSchema = z.object({
  signal: z.union([z.string(), z.number()]).nullish(),
  timeout: z.union([z.string(), z.number()]).nullish(),
})
export type VerbInput = z.infer<typeof verbInputSchema>

export const machineVersionSchema = z.object({
  version: z.string(),
  created_at: z.string(),
  user_config: machineConfigSchema,
})
export type MachineVersion = z.infer<typeof machineVersionSchema>

export const execInputSchema = z.object({
  cmd: z.string().nullish(),
  command: z.array(z.string()).nullish(),
  stdin: z.string().nullish(),
  /** Seconds. */
  timeout: z.int().min(1).nullish(),
  container: z.string().nullish(),
})
export type ExecInput = z.infer<typeof execInputSchema>

export const execResultSchema = z.object({
  exit_code: z.int(),
  stdout: z.string(),
  stderr: z.string(),
})
export type ExecResult = z.infer<typeof execResultSchema>

export const processSchema = z.object({
  pid: z.int(),
  stime: z.int(),
  rtime: z.int(),
  command: z.string(),
  directory: z.string(),
  cpu: z.int(),
  rss: z.int(),
  listen_sockets: z.array(z.object({ proto: z.string(), address: z.string() })),
})
export type MachineProcess = z.infer<typeof processSchema>
