import { z } from 'zod'
import { limits } from '#core/limits.ts'

const text = z.string().max(limits.secretBytesMax)
/** `POST /api/v1/apps/:app/builds`. */
export const buildInputSchema = z.object({
  /** The path inside the context. */
  dockerfile: z
    .string()
    .max(4096)
    .refine((path) => !path.startsWith('-') && !path.split('/').includes('..'), {
      message: 'must be a path inside the context',
    })
    .nullish(),
  target: z
    .string()
    .regex(/^[\w][\w.-]*$/, 'must be the name of a build stage')
    .nullish(),
  args: z.record(z.string().regex(/^[^=\s]+$/), text).nullish(),
  secrets: z.record(z.string().regex(/^[\w.-]{1,128}$/), text).nullish(),
  label: z
    .string()
    .regex(/^\w[\w.-]{0,127}$/, 'must be a valid image tag')
    .nullish(),
  no_cache: z.boolean().nullish(),
})
export type BuildInput = z.infer<typeof buildInputSchema>
