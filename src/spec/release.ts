import { z } from 'zod'

export const releaseStates = ['pending', 'running', 'complete', 'failed', 'interrupted'] as const

export const releaseSchema = z.object({
  id: z.string(),
  version: z.int(),
  status: z.enum(releaseStates),
  /** Who drives it: only server releases are resumed or undone. */
  driver: z.enum(['server', 'client']),
  strategy: z.string(),
  description: z.string(),
  reason: z.string(),
  image_ref: z.string().nullable(),
  user: z.string(),
  created_at: z.string(),
  updated_at: z.string(),
  /** The app's definition as deployed (TOML-3), JSON. */
  definition: z.record(z.string(), z.unknown()).nullable(),
})
export type Release = z.infer<typeof releaseSchema>

/** `POST /api/v1/apps/:app/deploys`: the definition is fly.toml parsed to JSON, unflattened. */
export const deployInputSchema = z.object({
  definition: z.record(z.string(), z.unknown()),
  image: z.string().min(1),
  /** Named on the command line; wins over the definition. */
  strategy: z.enum(['rolling', 'immediate']).nullish(),
  ha: z.boolean().nullish(),
  wait_timeout_ms: z.int().nullish(),
  release_command_timeout_ms: z.int().nullish(),
  skip_release_command: z.boolean().nullish(),
  env: z.record(z.string(), z.string()).nullish(),
  /** Fallback guest for new machines. */
  guest: z.looseObject({}).nullish(),
  primary_region: z.string().nullish(),
})
export type DeployInput = z.infer<typeof deployInputSchema>

/** One line of a deploy's progress, as JSON lines from `GET /api/v1/apps/:app/releases/:id/progress`. */
export const deployProgressSchema = z.object({
  seq: z.int(),
  at: z.string(),
  level: z.enum(['info', 'warn', 'error', 'log']),
  message: z.string(),
  machine: z.string().optional(),
  /** Only on the last line. */
  status: z.enum(releaseStates).optional(),
})
export type DeployProgress = z.infer<typeof deployProgressSchema>
