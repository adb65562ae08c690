import { mkdirSync } from 'node:fs'
import { dirname } from 'node:path'
import { Fault, isFault } from '#core/fault.ts'
import { newTokenId, newTokenSecret } from '#core/ids.ts'
import { limits } from '#core/limits.ts'
import { readTextFile, writeFileAtomic } from '#sys/files.ts'
import type { ControlContext } from '../context.ts'
import type { TokenScope } from '../store/index.ts'
import { mayManageToken, requireCovered } from './permissions.ts'
import { hashOf, verifyTokens, type Caller } from './verify.ts'

type Store = Pick<ControlContext, 'db' | 'clock'>

/** SEC-21: 175,200 hours. */
const defaultTokenLifeMs = 175_200 * 3_600_000

/** Makes a token. The secret is returned here and never again. */
export async function createToken(
  ctx: Store,
  options: {
    name: string
    email: string
    scope: TokenScope
    lifeMs?: number
    madeBy?: string | null
  },
): Promise<TokenInfo & { secret: string }> {
  const { name, email, scope, lifeMs = defaultTokenLifeMs, madeBy = null } = options
  const id = newTokenId()
  const secret = newTokenSecret()
  const expiresAt = new Date(ctx.clock.now() + lifeMs)
  await ctx.db
    .insertInto('tokens')
    .values({
      id,
      name,
      hash: hashOf(secret),
      email,
      scope: JSON.stringify(scope),
      expires_at: expiresAt,
      made_by: madeBy,
    })
    .execute()
  return { id, secret, name, email, expiresAt, revokedAt: null, scope, madeBy }
}

/**
 * Makes a token on a caller's behalf. It can do no more than its maker; unless the maker is the operator, it also ends no
 * later. Faults: `forbidden`, `limit_reached`.
 */
export async function mintToken(
  ctx: Store,
  caller: Caller,
  options: { name: string; scope: TokenScope; lifeMs?: number | undefined },
): Promise<TokenInfo & { secret: string }> {
  const { name, scope } = options
  requireCovered(caller, scope)
  await requireRoom(ctx, scope)
  const lifeMs = lifeUnder(ctx, caller, options.lifeMs ?? defaultTokenLifeMs)
  return createToken(ctx, { name, email: caller.email, scope, lifeMs, madeBy: caller.tokenId })
}

/** What is left of the maker's own life bounds what it makes; the operator's sessions may make lasting tokens. */
function lifeUnder(
  ctx: Pick<Store, 'clock'>,
  maker: Pick<Caller, 'scope' | 'expiresAt'>,
  wantedMs: number,
): number {
  if (maker.scope.profile === 'admin') return wantedMs
  return Math.min(wantedMs, maker.expiresAt.getTime() - ctx.clock.now())
}

async function requireRoom(ctx: Store, scope: TokenScope): Promise<void> {
  const { count } = await ctx.db
    .selectFrom('tokens')
    .select((eb) => eb.fn.countAll<number>().as('count'))
    .where((eb) => {
      const orgId = eb.ref('scope', '->>').key('org_id')
      return scope.org_id === undefined ? eb(orgId, 'is', null) : eb(orgId, '=', scope.org_id)
    })
    .where('revoked_at', 'is', null)
    .where('expires_at', '>', new Date(ctx.clock.now()))
    .executeTakeFirstOrThrow()
  if (count < limits.liveTokensPerOrgMax) return
  throw new Fault(
    'limit_reached',
    `there are ${limits.liveTokensPerOrgMax} live tokens already; revoke some with: fly tokens revoke ID`,
  )
}

/** SEC-21: effective at once. False when there was no such token. */
export async function revokeToken(ctx: Store, id: string): Promise<boolean> {
  const result = await ctx.db
    .updateTable('tokens')
    .set({ revoked_at: new Date(ctx.clock.now()) })
    .where('id', '=', id)
    .where('revoked_at', 'is', null)
    .executeTakeFirst()
  return result.numUpdatedRows > 0n
}

/** Revokes a token that the caller may manage. A foreign one is not there for it: fault `not_found`. */
export async function revokeTokenFor(ctx: Store, caller: Caller, id: string): Promise<void> {
  const token = await ctx.db
    .selectFrom('tokens')
    .select(['id', 'made_by as madeBy'])
    .where('id', '=', id)
    .executeTakeFirst()
  if (!token || !mayManageToken(caller, token)) {
    throw new Fault('not_found', `there is no token ${id} that you may revoke`)
  }
  await revokeToken(ctx, id)
}

/** Ends the caller's own token. The operator's first one is the key to the cloud: leaving a shell must not throw it away. */
export async function logOut(ctx: Store, caller: Caller): Promise<void> {
  if (caller.scope.profile === 'admin' && caller.madeBy === null) return
  await revokeToken(ctx, caller.tokenId)
}

/** The operator's first token, written with mode 0600. A file whose token still verifies is left alone. */
export async function ensureFirstToken(
  ctx: Pick<ControlContext, 'db' | 'clock' | 'settings' | 'log'>,
): Promise<void> {
  const path = ctx.settings.first_token_file
  const kept = readTextFile(path)?.trim()
  if (kept && (await isGood(ctx, kept))) return
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

async function isGood(ctx: Store, secret: string): Promise<boolean> {
  try {
    await verifyTokens(ctx, secret)
    return true
  } catch (error) {
    if (isFault(error, 'unauthorized')) return false
    throw error
  }
}

export interface TokenInfo {
  id: string
  name: string
  email: string
  expiresAt: Date
  revokedAt: Date | null
  scope: TokenScope
  madeBy: string | null
}

/** Tokens that one list shows: all that are good, and the newest of those that are not any more. */
const listMax = limits.liveTokensPerOrgMax

/** The tokens of an organization or of one app that the caller may manage, oldest first; ended ones too. SEC-21. */
export async function listTokens(
  ctx: Store,
  caller: Pick<Caller, 'scope' | 'tokenId'>,
  filter: { orgId: string; appId?: string },
): Promise<TokenInfo[]> {
  let query = ctx.db
    .selectFrom('tokens')
    .select(['id', 'name', 'email', 'expires_at', 'revoked_at', 'scope', 'made_by', 'created_at'])
    .where((eb) => eb(eb.ref('scope', '->>').key('org_id'), '=', filter.orgId))
    .orderBy(
      (eb) =>
        eb.and([eb('revoked_at', 'is', null), eb('expires_at', '>', new Date(ctx.clock.now()))]),
      'desc',
    )
    .orderBy('created_at', 'desc')
    .limit(listMax)
  const { appId } = filter
  if (appId !== undefined) {
    query = query.where((eb) => eb(eb.ref('scope', '->>').key('app_id'), '=', appId))
  }
  const rows = await query.execute()
  return rows
    .toSorted((a, b) => a.created_at.getTime() - b.created_at.getTime())
    .map((row) => ({
      id: row.id,
      name: row.name,
      email: row.email,
      expiresAt: row.expires_at,
      revokedAt: row.revoked_at,
      scope: row.scope,
      madeBy: row.made_by,
    }))
    .filter((token) => mayManageToken(caller, token))
}
