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
})
export type Volume = z.infer<typeof volumeSchema>

export const volumeInputSchema = z.object({
  name: z
    .string()
    .regex(/^[a-z0-9_]{1,30}$/, 'must be 1 to 30 lowercase letters, digits and underscores'),
  region: z.string().nullish(),
  /** CONF-5: 3 GB when omitted, which some clients write as 0. VOL-2: 1 to 500. */
  size_gb: z.int().min(0).max(500).nullish(),
  encrypted: z.boolean().nullish(),
  snapshot_retention: z.int().min(1).max(60).nullish(),
  auto_backup_enabled: z.boolean().nullish(),
  fstype: z.enum(['ext4', 'raw']).nullish(),
  require_unique_zone: z.boolean().nullish(),
  /** What the volume is to be made from. */
  snapshot_id: z.string().nullish(),
  source_volume_id: z.string().nullish(),
})
export type VolumeInput = z.infer<typeof volumeInputSchema>
