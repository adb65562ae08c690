import { createHash } from 'node:crypto'
import { sql } from 'kysely'
import { Fault } from '#core/fault.ts'
import { limits } from '#core/limits.ts'
import type { ControlContext } from '../context.ts'
import { readTogether, type TokenScope } from '../store/index.ts'

/** Who a request comes from. */
export interface Caller {
  tokenId: string
  email: string
  scope: TokenScope
  expiresAt: Date
  /** The token that made this one; null for the operator's first. */
  madeBy: string | null
}

type Store = Pick<ControlContext, 'db' | 'clock'>

/** Secrets of 128 bits and more need no salt and no slow hash: nobody tries them all. */
export const hashOf = (secret: string): Buffer => createHash('sha256').update(secret).digest()

/** Tokens of one header that are looked at. */
const partsMax = 8

const whereFrom =
  'log in with "hangar auth login" or "fly auth login"; the operator\'s token is in the file "token" of HANGAR_HOME'

// Clients show these words; "authenticated" is what people know to look for.
const refused = (why: string): Fault =>
  new Fault('unauthorized', `You must be authenticated: ${why}`)

/**
 * SEC-20: who sends the header `Bearer a,b` or `FlyV1 a,b`, or both words: people keep `FlyV1 a` as their token, and scripts
 * write `Bearer` before it. Fault `unauthorized`.
 */
export async function authenticate(ctx: Store, header: string | undefined): Promise<Caller> {
  if (!header) throw refused(`send "authorization: Bearer TOKEN"; ${whereFrom}`)
  if (Buffer.byteLength(header) > limits.credentialBytesMax) throw tooLong()
  const match = /^(?:bearer|flyv1)\s+(?:flyv1\s+)?(.+)$/i.exec(header.trim())
  if (!match) throw refused('the header must be "authorization: Bearer TOKEN"')
  return verifyTokens(ctx, match[1] as string)
}

const tooLong = (): Fault =>
  refused(`the token is longer than ${limits.credentialBytesMax} bytes; none of this cloud is`)

const tokenByHash = readTogether(async (db, hashes) => {
  const rows = await db
    .selectFrom('tokens')
    .select(['id', 'hash', 'email', 'scope', 'expires_at', 'revoked_at', 'made_by'])
    .where('hash', '=', sql<Buffer>`any(${hashes.map((hash) => Buffer.from(hash, 'hex'))})`)
    .execute()
  return new Map(rows.map((row) => [row.hash.toString('hex'), row]))
})

/**
 * The one place that verifies. Of several tokens, separated by commas, the first that is good counts. Nothing caches the
 * answer, so that a revocation is effective at once (SEC-21): requests of the same moment share a query that starts after them. Fault `unauthorized`, which says what is wrong.
 */
export async function verifyTokens(ctx: Store, text: string): Promise<Caller> {
  if (Buffer.byteLength(text) > limits.credentialBytesMax) throw tooLong()
  const parts = text.split(',', partsMax).map((part) => part.trim())
  const hashes = parts.filter((part) => part !== '').map(hashOf)
  if (hashes.length === 0) throw refused(`the token is empty; ${whereFrom}`)
  const rows = await Promise.all(hashes.map((hash) => tokenByHash(ctx.db, hash.toString('hex'))))
  const found = rows.filter((row) => row !== undefined)
  const good = found.find((row) => !row.revoked_at && row.expires_at.getTime() > ctx.clock.now())
  if (good) {
    const { id: tokenId, email, scope, expires_at: expiresAt, made_by: madeBy } = good
    return { tokenId, email, scope, expiresAt, madeBy }
  }
  const [known] = found
  if (!known) {
    throw refused(`no token of this cloud; was it cut off, or is it of another one? ${whereFrom}`)
  }
  const { id, revoked_at: revoked, expires_at: expires } = known
  throw refused(
    revoked
      ? `token ${id} was revoked at ${revoked.toISOString()}; use another one`
      : `token ${id} expired at ${expires.toISOString()}; make another one`,
  )
}
