import { z } from 'zod'

/** `POST /v1/apps/:app/ip_assignments`, NET-40. */
export const ipInputSchema = z.object({
  type: z.string(),
  region: z.string().nullish(),
  /** For a flycast address: the organization and network that may use it, when not the app's own. */
  org_slug: z.string().nullish(),
  network: z.string().nullish(),
  service_name: z.string().nullish(),
})

export const ipAssignmentSchema = z.object({
  ip: z.string(),
  /** `global`, a region's code, or empty for a shared one. */
  region: z.string(),
  service_name: z.string(),
  shared: z.boolean(),
  created_at: z.string(),
})
export type IpAssignmentView = z.infer<typeof ipAssignmentSchema>
