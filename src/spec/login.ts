import { z } from 'zod'
import { limits } from '#core/limits.ts'

const shortText = (max: number) => z.string().max(max)
const lock = shortText(100).nullish()

/** Locks on the token that is asked for, or a launch's plan; kept and given back as it came. */
const metadataSchema = z
  .looseObject({ lock_organization: lock, lock_app: lock, lock_instance: lock })
  .refine(
    (value) => Buffer.byteLength(JSON.stringify(value)) <= limits.loginMetadataBytesMax,
    `must be at most ${limits.loginMetadataBytesMax} bytes`,
  )

export type LoginMetadata = z.infer<typeof metadataSchema>

/** `POST /api/v1/cli_sessions`: a program asks for a token that a person allows in a browser. §3. */
export const loginInputSchema = z
  .object({
    name: shortText(200).nullish(),
    signup: z.boolean().nullish(),
    target: z.enum(['auth', 'launch']).nullish(),
    metadata: metadataSchema.nullish(),
    /** RFC 7636: SHA-256 in base64url. */
    code_challenge: z
      .string()
      .regex(/^[A-Za-z0-9_-]{43}$/, 'must be a SHA-256 in base64url')
      .nullish(),
    code_challenge_method: z.literal('S256').nullish(),
    state: shortText(200).nullish(),
    /** Where the program listens on the loopback of the person's machine. */
    redirect_port: z.int().min(1).max(65_535).nullish(),
  })
  .refine(
    ({ code_challenge, code_challenge_method }) => !code_challenge || code_challenge_method,
    'code_challenge needs code_challenge_method "S256"',
  )
export type LoginInput = z.infer<typeof loginInputSchema>

/** `POST /api/v1/cli_sessions/:id/redeem`. */
export const redeemInputSchema = z.object({
  code: shortText(200),
  code_verifier: shortText(200),
})
export type RedeemInput = z.infer<typeof redeemInputSchema>
