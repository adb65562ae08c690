import { z } from 'zod'

/** VOL-3, VOL-4. */
export const volumeSchema = z.object({
  id: z.string(),
  name: z.string(),
  state: z.enum([
    'creating',
    'created',
    'extending',
    'restoring',
    'hydrating',
    'scheduling_destroy',
    'pending_destroy',
  ]),
  size_gb: z.int(),
  region: z.string(),
  zone: z.string(),
  encrypted: z.boolean(),
  attached_machine_id: z.string().nullable(),
  attached_alloc_id: z.string().nullable(),
  created_at: z.string(),
  fstype: z.enum(['ext4', 'raw']),
  snapshot_retention: z.int(),
  auto_backup_enabled: z.boolean(),
  host_status: z.enum(['ok', 'unknown', 'unreachable']),
  /** What its file system says while it is mounted, in blocks and bytes. */
  blocks: z.int().optional(),
  block_size: z.int().optional(),
  blocks_free: z.int().optional(),
  blocks_avail: z.int().optional(),
  bytes_used: z.int().optional(),
  bytes_total: z.int().optional(),
  /** Why it is still `restoring`, `hydrating` or `extending`, and what to do. */
  error: z.string().optional(),
})
export type Volume = z.infer<typeof volumeSchema>

export const volumeInputSchema = z.object({
  name: z
    .string()
    .regex(/^[a-z0-9_]{1,30}$/, 'must be 1 to 30 lowercase letters, digits and underscores'),
  region: z.string().nullish(),
  /** CONF-5: 3 GB when omitted; 0 is as large as the app's largest of this name. VOL-2: 1 to 500. */
  size_gb: z.int().min(0).max(500).nullish(),
  encrypted: z.boolean().nullish(),
  snapshot_retention: z.int().min(1).max(60).nullish(),
  auto_backup_enabled: z.boolean().nullish(),
  fstype: z.enum(['ext4', 'raw']).nullish(),
  /** VOL-6: on another host than the app's volumes of this name. */
  require_unique_zone: z.boolean().nullish(),
  /** VOL-6: on another host than any volume of the app. */
  unique_zone_app_wide: z.boolean().nullish(),
  /** What the volume is to be made from. */
  snapshot_id: z.string().nullish(),
  source_volume_id: z.string().nullish(),
})
export type VolumeInput = z.infer<typeof volumeInputSchema>

/** VOL-17: what may change on a volume that exists; what is absent stays. */
export const volumeChangeSchema = z.object({
  snapshot_retention: z.int().min(1).max(60).nullish(),
  auto_backup_enabled: z.boolean().nullish(),
})
export type VolumeChange = z.infer<typeof volumeChangeSchema>

/** VOL-2: larger only. */
export const volumeExtendSchema = z.object({ size_gb: z.int().min(1).max(500) })
export const volumeExtendedSchema = z.object({
  volume: volumeSchema,
  /** True when the machine that has it must start again to see the space. */
  needs_restart: z.boolean(),
})
export type VolumeExtended = z.infer<typeof volumeExtendedSchema>

/** VOL-14. */
export const snapshotSchema = z.object({
  id: z.string(),
  volume_id: z.string(),
  /** Bytes it holds. */
  size: z.int(),
  /** Bytes of the volume when it was taken. */
  volume_size: z.int(),
  /** sha256 of its content; empty until it is `created`. */
  digest: z.string(),
  created_at: z.string(),
  status: z.enum(['waiting', 'running', 'created', 'failed']),
  retention_days: z.int(),
  /** Why it `failed`, and what to do. */
  error: z.string().optional(),
})
export type Snapshot = z.infer<typeof snapshotSchema>
