import { createHash } from 'node:crypto'
import { mkdirSync } from 'node:fs'
import { dirname } from 'node:path'
import { newTokenId, newTokenSecret } from '#core/ids.ts'
import { readTextFile, writeFileAtomic } from '#sys/files.ts'
import type { ControlContext } from '../context.ts'
import type { TokenScope } from '../store/index.ts'

/** Who a request comes from. */
export interface Caller {
  tokenId: string
  email: string
  scope: TokenScope
}

/** SEC-21: 175,200 hours. */
export const defaultTokenLifeMs = 175_200 * 3_600_000

const hashOf = (secret: string): Buffer => createHash('sha256').update(secret).digest()

/** Makes a token. The secret is returned here and never again. */
export async function createToken(
  ctx: Pick<ControlContext, 'db' | 'clock'>,
  options: { name: string; email: string; scope: TokenScope; lifeMs?: number },
): Promise<{ id: string; secret: string }> {
  const id = newTokenId()
  const secret = newTokenSecret()
  await ctx.db
    .insertInto('tokens')
    .values({
      id,
      name: options.name,
      hash: hashOf(secret),
      email: options.email,
      scope: JSON.stringify(options.scope),
      expires_at: new Date(ctx.clock.now() + (options.lifeMs ?? defaultTokenLifeMs)),
    })
    .execute()
  return { id, secret }
}

/** SEC-21: effective at once. False when there was no such token. */
export async function revokeToken(
  ctx: Pick<ControlContext, 'db' | 'clock'>,
  id: string,
): Promise<boolean> {
  const result = await ctx.db
    .updateTable('tokens')
    .set({ revoked_at: new Date(ctx.clock.now()) })
    .where('id', '=', id)
    .where('revoked_at', 'is', null)
    .executeTakeFirst()
  return result.numUpdatedRows > 0n
}

/** The caller that a token stands for, or undefined when it is unknown, expired or revoked. */
export async function verifyToken(
  ctx: Pick<ControlContext, 'db' | 'clock'>,
  secret: string,
): Promise<Caller | undefined> {
  const row = await ctx.db
    .selectFrom('tokens')
    .select(['id', 'email', 'scope'])
    .where('hash', '=', hashOf(secret))
    .where('revoked_at', 'is', null)
    .where('expires_at', '>', new Date(ctx.clock.now()))
    .executeTakeFirst()
  return row && { tokenId: row.id, email: row.email, scope: row.scope }
}

/** SEC-20: `Bearer a,b` or `FlyV1 a,b`; the first part that verifies counts. At most eight parts are looked at. */
export async function verifyHeader(
  ctx: Pick<ControlContext, 'db' | 'clock'>,
  header: string | undefined,
): Promise<Caller | undefined> {
  const match = /^(?:bearer|flyv1)\s+(.+)$/i.exec(header?.trim() ?? '')
  for (const part of (match?.[1] ?? '').split(',').slice(0, 8)) {
    const caller = part.trim() === '' ? undefined : await verifyToken(ctx, part.trim())
    if (caller) return caller
  }
  return undefined
}

/** The operator's first token, written with mode 0600. A file whose token still verifies is left alone. */
export async function ensureFirstToken(
  ctx: Pick<ControlContext, 'db' | 'clock' | 'settings' | 'log'>,
): Promise<void> {
  const path = ctx.settings.first_token_file
  const kept = readTextFile(path)?.trim()
  if (kept && (await verifyToken(ctx, kept))) return
  const email = `admin@${ctx.settings.domain}`
  const { id, secret } = await createToken(ctx, {
    name: 'hangar',
    email,
    scope: { profile: 'admin' },
  })
  mkdirSync(dirname(path), { recursive: true })
  writeFileAtomic(path, `${secret}\n`, 0o600)
  ctx.log.info({ token: id, file: path }, 'made the first token')
}

export interface TokenInfo {
  id: string
  name: string
  email: string
  expiresAt: Date
  revokedAt: Date | null
  scope: TokenScope
}

/** The tokens of an organization or of one app, oldest first; revoked and expired ones too. SEC-21. */
export async function listTokens(
  ctx: Pick<ControlContext, 'db'>,
  filter: { orgId: string; appId?: string },
): Promise<TokenInfo[]> {
  const rows = await ctx.db
    .selectFrom('tokens')
    .select(['id', 'name', 'email', 'expires_at', 'revoked_at', 'scope'])
    .orderBy('created_at')
    .limit(1_000)
    .where((eb) => eb(eb.ref('scope', '->>').key('org_id'), '=', filter.orgId))
    .execute()
  return rows
    .filter((row) => filter.appId === undefined || row.scope.app_id === filter.appId)
    .map((row) => ({
      id: row.id,
      name: row.name,
      email: row.email,
      expiresAt: row.expires_at,
      revokedAt: row.revoked_at,
      scope: row.scope,
    }))
}

/** One token's scope, for whoever wants to revoke it. */
export async function findToken(
  ctx: Pick<ControlContext, 'db'>,
  id: string,
): Promise<Pick<TokenInfo, 'id' | 'scope'> | undefined> {
  return ctx.db.selectFrom('tokens').select(['id', 'scope']).where('id', '=', id).executeTakeFirst()
}
