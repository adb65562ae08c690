import { z } from 'zod'
import { releaseSchema } from './release.ts'

/** §6: the shapes of the door for clients that drive their deploys themselves. */

export const organizationSchema = z.object({
  id: z.string(),
  internal_numeric_id: z.int(),
  slug: z.string(),
  raw_slug: z.string(),
  name: z.string(),
  paid_plan: z.boolean(),
  personal: z.boolean(),
  billing_status: z.string(),
  provisions_beta_extensions: z.boolean(),
  billable: z.boolean(),
  remote_builder_image: z.string(),
})
export type OrganizationView = z.infer<typeof organizationSchema>

export const clientReleaseInputSchema = z.object({
  app_name: z.string(),
  image: z.string(),
  strategy: z.string().nullish(),
  /** The app's config as the client deploys it. */
  definition: z.record(z.string(), z.unknown()).nullish(),
})

/** A release as these clients decode it, and everything else that it is. */
export const releaseViewSchema = releaseSchema.extend({
  stable: z.boolean(),
  in_progress: z.boolean(),
  image_ref: z.string(),
})
export type ReleaseView = z.infer<typeof releaseViewSchema>

export const clientBuildInputSchema = z.object({
  app_name: z.string(),
  builder_type: z.string().nullish(),
})
export const clientBuildEndSchema = z.object({
  app_name: z.string(),
  build_id: z.union([z.number(), z.string()]).nullish(),
  status: z.string().nullish(),
})
export const clientBuildSchema = z.object({
  id: z.int(),
  status: z.string(),
  wallclock_time_ms: z.int(),
})
