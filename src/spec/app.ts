import { z } from 'zod'

/** TOML-2, SEC-30: app names are unique in the whole cloud. */
export const appNameSchema = z
  .string()
  .regex(
    /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/,
    'must be lowercase letters, digits and dashes, at most 63, and start and end with a letter or digit',
  )

export const appInputSchema = z.object({
  app_name: z.string().nullish(),
  name: z.string().nullish(),
  org_slug: z.string().nullish(),
  network: z.string().nullish(),
  /** Letters, digits, dashes: what the client will look for. */
  app_role_id: z
    .string()
    .regex(/^[a-z0-9_-]{0,63}$/)
    .nullish(),
})

export const appSchema = z.object({
  id: z.string(),
  name: z.string(),
  internal_numeric_id: z.int(),
  network: z.string(),
  /** `pending` before the first deploy. */
  status: z.enum(['pending', 'deployed', 'suspended']),
  /** What it was made for; empty for an ordinary app. */
  app_role: z.string().optional(),
  machine_count: z.int(),
  volume_count: z.int(),
  organization: z.object({ name: z.string(), slug: z.string(), internal_numeric_id: z.int() }),
  created_at: z.string(),
  /** Where the app answers, with the ports of this cloud. */
  hostname: z.string(),
  urls: z.array(z.string()),
})
export type App = z.infer<typeof appSchema>

export const secretSchema = z.object({
  name: z.string(),
  /** Changes with the value (SEC-1). */
  digest: z.string(),
  created_at: z.string(),
  updated_at: z.string(),
})
export type Secret = z.infer<typeof secretSchema>

/** SEC-7: an environment identifier, never `FLY_…`. */
export const secretNameSchema = z
  .string()
  .regex(
    /^[A-Za-z_][A-Za-z0-9_]*$/,
    'must be letters, digits and underscores, not starting with a digit',
  )
  .refine((name) => !name.startsWith('FLY_'), 'must not start with FLY_')

/** SEC-4: null deletes. */
export const secretsInputSchema = z.object({
  values: z.record(secretNameSchema, z.string().nullable()),
})
export const secretsResultSchema = z.object({ version: z.int(), secrets: z.array(secretSchema) })
