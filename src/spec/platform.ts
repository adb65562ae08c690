import { z } from 'zod'
import { guestSchema } from './machine-config.ts'

/** `POST /v1/platform/placements`, MCH-91. */
export const placementsInputSchema = z.object({
  compute: guestSchema.nullish(),
  region: z.string().nullish(),
  count: z.int().min(0).nullish(),
})

export const placementsSchema = z.object({
  Regions: z.array(z.object({ Region: z.string(), Count: z.int(), Concurrency: z.int() })),
})

export const platformRegionSchema = z.object({
  code: z.string(),
  name: z.string(),
  latitude: z.number(),
  longitude: z.number(),
  geo_region: z.string(),
  gateway_available: z.boolean(),
  requires_paid_plan: z.boolean(),
  deprecated: z.boolean(),
  /** Megabytes of memory that its hosts have free. */
  capacity: z.number(),
  mpg_available: z.boolean(),
})
