import { z } from 'zod'
import { machineInputSchema } from './machine.ts'
import { machineRowSchema } from './roster.ts'
import { volumeInputSchema } from './volume.ts'

/**
 * The API of one host, spoken by control (intent), by the edge (wake, sleep) and by nobody else: HTTP over a unix socket
 * or the mesh, `authorization: Bearer <cluster key>`. Machine verbs have the shapes of the public Machines API:
 *
 *   GET    /v1/host                                    HostInfo
 *   POST   /v1/machines                                HostCreate → Machine (+ nonce when lease_ttl > 0)
 *   GET    /v1/machines?app=&include_deleted=true      Machine[]; with indexed=true as machine-line.ts says
 *   GET    /v1/machines/:id                            Machine
 *   POST   /v1/machines/:id                            HostUpdate → Machine
 *   DELETE /v1/machines/:id?kill=true                  {ok}
 *   POST   /v1/machines/:id/start|stop|restart|signal|cordon|uncordon|suspend|exec
 *   GET    /v1/machines/:id/exec                       a WebSocket: spec/program.ts
 *   GET    /v1/machines/:id/wait|ps|events|versions|lease|metadata
 *   POST   /v1/machines/:id/lease?ttl=                 lease envelope; DELETE releases
 *   POST   /v1/machines/:id/metadata/:key  {value}     204; DELETE 204
 *   POST   /v1/machines/:id/wake                       WakeResult: started if it was not, ready for traffic
 *   GET    /v1/machines/:id/routed?timeout_ms=         RoutedResult: every live edge has the machine's present row
 *   PUT    /v1/apps/:app/secrets                       AppSecrets → {ok}; kept sealed, used at the next start
 *   DELETE /v1/apps/:app                               {ok}; forgets the app's secrets and logs
 *   GET    /v1/apps/:app/logs?instance=&since=&limit=&follow=true      LogLine as JSON lines
 *   POST   /v1/volumes                                 HostVolumeCreate → Volume (`restoring`, `hydrating`: being filled)
 *   GET    /v1/volumes?app= · GET|DELETE /v1/volumes/:id         destroyed ones are there until they are really gone
 *   DELETE /v1/volumes/:id?now=true                    {ok}; at once and with its snapshots, attached or not: its app is deleted
 *   PUT    /v1/volumes/:id                             VolumeChange → Volume
 *   PUT    /v1/volumes/:id/extend   {size_gb}          VolumeExtended
 *   GET    /v1/volumes/:id/snapshots                   Snapshot[] oldest first, also of a destroyed volume
 *   POST   /v1/volumes/:id/snapshots  {id, transfer?}  Snapshot; the same id again is the same snapshot
 *   GET    /v1/snapshots/:id · DELETE                  Snapshot · {ok}
 *   GET    /v1/snapshots/:id/data                      its bytes, as a sparse tar stream; 412 until it is `created`
 *   POST   /v1/images/resolve                          ResolveImage → ResolvedImage
 *   POST   /v1/down                                    stops every machine; those that ran start again with the host
 *
 * Errors: `{error, status}` where status is the fault's code. `x-hangar-source: user|proxy|flyd` names who asks, for
 * the event; the lease nonce travels in its own header.
 */

export const appRefSchema = z.object({
  id: z.string(),
  name: z.string(),
  org: z.string(),
  /** The number of the app's network: the /48 of its machines (NET-1). */
  network: z.int(),
})
export type AppRef = z.infer<typeof appRefSchema>

export const appSecretsSchema = z.object({
  version: z.int(),
  values: z.record(z.string(), z.string()),
})
export type AppSecrets = z.infer<typeof appSecretsSchema>

export const hostCreateSchema = z.object({
  id: z.string(),
  app: appRefSchema,
  input: machineInputSchema,
  secrets: appSecretsSchema.optional(),
  /** Who will own the lease, when the input asks for one. */
  owner: z.string(),
})
export type HostCreate = z.infer<typeof hostCreateSchema>

export const hostUpdateSchema = z.object({
  input: machineInputSchema,
  secrets: appSecretsSchema.optional(),
})
export type HostUpdate = z.infer<typeof hostUpdateSchema>

export const hostVolumeCreateSchema = z.object({
  id: z.string(),
  app: appRefSchema,
  input: volumeInputSchema,
  /** Where the content comes from: a snapshot (VOL-15) or a volume as it is now (VOL-13), on this host or another. */
  source: z
    .object({
      kind: z.enum(['snapshot', 'volume']),
      id: z.string(),
      /** The address of the host that has it. */
      host_api: z.string(),
      /** GB of the source; the new volume is at least as large. */
      size_gb: z.int(),
    })
    .optional(),
})
export type HostVolumeCreate = z.infer<typeof hostVolumeCreateSchema>

export const hostSnapshotCreateSchema = z.object({
  id: z.string(),
  /** Only for the copy to another host: in no list, and removed by who asked for it. */
  transfer: z.boolean().optional(),
})
export type HostSnapshotCreate = z.infer<typeof hostSnapshotCreateSchema>

export const hostInfoSchema = z.object({
  id: z.string(),
  number: z.int(),
  region: z.string(),
  pid: z.int(),
  /** What machines run in that do not choose for themselves: `container`, `qemu`; `auto` while a VM is being tried. */
  runtime: z.string(),
  /** `kvm` or `tcg` of a VM. */
  accel: z.string().optional(),
  /** What separates its machines from it. */
  isolation: z.enum(['vm', 'container', 'none']).optional(),
  /** Why this runtime and what it costs, for people: "containers by crun: a weaker wall than a VM". */
  runtime_note: z.string(),
  machines: z.int(),
  /** Packets of machines that their walls dropped since the host process began; absent until it has looked. */
  dropped: z
    .object({
      /** Under an address that is not the sender's. */
      spoofed: z.int(),
      /** To the host, to link-local and metadata addresses. */
      to_host: z.int(),
      /** To machines of other networks, or to any by IPv4. */
      to_machines: z.int(),
      /** Frames of no protocol that a machine may speak. */
      foreign: z.int(),
      /** Who sent them, the most first; not told to those who may not see all apps. */
      machines: z.array(z.object({ id: z.string(), packets: z.int() })),
    })
    .optional(),
  capacity: z.object({ cpus: z.int(), memory_mb: z.int() }),
  used: z.object({ cpus: z.int(), memory_mb: z.int(), machines: z.int() }),
})
export type HostInfo = z.infer<typeof hostInfoSchema>

export const wakeResultSchema = z.object({ row: machineRowSchema })
export type WakeResult = z.infer<typeof wakeResultSchema>

export const routedResultSchema = z.object({ routed: z.boolean(), edges: z.int() })
export type RoutedResult = z.infer<typeof routedResultSchema>

export const resolveImageSchema = z.object({ image: z.string() })
export const resolvedImageSchema = z.object({
  registry: z.string(),
  repository: z.string(),
  tag: z.string(),
  digest: z.string(),
  labels: z.record(z.string(), z.string()).nullable(),
  /** `registry/repository:tag@digest`. */
  ref: z.string(),
  /** Compressed bytes of the layers. */
  size: z.int(),
  exposed_ports: z.array(z.int()),
})
export type ResolvedImage = z.infer<typeof resolvedImageSchema>

/** OBS-10, in our own words; doors translate. */
export const logLineSchema = z.object({
  /** Nanoseconds since the epoch, as digits: also the cursor. */
  ns: z.string(),
  timestamp: z.string(),
  app: z.string(),
  region: z.string(),
  instance: z.string(),
  level: z.enum(['info', 'warn', 'error']),
  provider: z.enum(['app', 'runner', 'proxy']),
  message: z.string(),
})
export type LogLine = z.infer<typeof logLineSchema>
