import { mkdirSync } from 'node:fs'
import { dirname } from 'node:path'
import { sql } from 'kysely'
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
    lifeMs?: number | undefined
    /** The end of whoever allowed it: it ends no later, not by a millisecond. */
    notAfter?: Date | undefined
    madeBy?: string | null
  },
): Promise<TokenInfo & { secret: string }> {
  const { name, email, scope, lifeMs = defaultTokenLifeMs, madeBy = null } = options
  const id = newTokenId()
  const secret = newTokenSecret()
  const latest = options.notAfter?.getTime() ?? Infinity
  const expiresAt = new Date(Math.min(ctx.clock.now() + lifeMs, latest))
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
  const { name, scope, lifeMs } = options
  requireCovered(caller, scope)
  await requireRoom(ctx, scope)
  const notAfter = caller.scope.profile === 'admin' ? undefined : caller.expiresAt
  return ctx.db.transaction().execute(async (db) => {
    await holdMaker(db, caller.tokenId)
    const made = { name, email: caller.email, scope, lifeMs, notAfter, madeBy: caller.tokenId }
    return createToken({ db, clock: ctx.clock }, made)
  })
}

/** Keeps the maker from being revoked until its token is there to be revoked too. Fault `unauthorized`. */
async function holdMaker(db: Store['db'], id: string): Promise<void> {
  const maker = await db
    .selectFrom('tokens')
    .select('id')
    .where('id', '=', id)
    .where('revoked_at', 'is', null)
    .forShare()
    .executeTakeFirst()
  if (!maker) throw new Fault('unauthorized', `token ${id} was revoked; use another one`)
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

/** SEC-21: effective at once, for the token, those it made and those made in turn. Returns the ids of what was still good. */
async function revokeFamily(ctx: Store, id: string): Promise<string[]> {
  const now = new Date(ctx.clock.now())
  for (const ended: string[] = []; ;) {
    const { rows } = await sql<{ id: string }>`
      with recursive family (id) as (
        select id from tokens where id = ${id}
        union select tokens.id from tokens join family on tokens.made_by = family.id
      )
      update tokens set revoked_at = ${now} where revoked_at is null and id in (select id from family)
      returning id`.execute(ctx.db)
    ended.push(...rows.map((row) => row.id))
    // One that was being made meanwhile held its maker until it was there: the next look sees it.
    if (rows.length === 0) return ended
  }
}

/**
 * Revokes a token that the caller may manage, with all that it made. A foreign one is not there for it: fault `not_found`.
 * Returns how many of those ended with it.
 */
export async function revokeTokenFor(ctx: Store, caller: Caller, id: string): Promise<number> {
  const token = await ctx.db
    .selectFrom('tokens')
    .select(['id', 'made_by as madeBy'])
    .where('id', '=', id)
    .executeTakeFirst()
  if (!token || !mayManageToken(caller, token)) {
    throw new Fault('not_found', `there is no token ${id} that you may revoke`)
  }
  return (await revokeFamily(ctx, id)).filter((ended) => ended !== id).length
}

/**
 * Ends the caller's own token and none that it made: sessions make lasting ones. The operator's first one is the key to the
 * cloud: leaving a shell must not throw it away.
 */
export async function logOut(ctx: Store, caller: Caller): Promise<void> {
  if (caller.scope.profile === 'admin' && caller.madeBy === null) return
  await ctx.db
    .updateTable('tokens')
    .set({ revoked_at: new Date(ctx.clock.now()) })
    .where('id', '=', caller.tokenId)
    .where('revoked_at', 'is', null)
    .execute()
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

/**
 * The tokens of an organization or of one app that the caller may manage, oldest first; ended ones too. In the operator's
 * list of any organization are those that belong to none: each of them opens all. SEC-21.
 */
export async function listTokens(
  ctx: Store,
  caller: Pick<Caller, 'scope' | 'tokenId'>,
  filter: { orgId: string; appId?: string },
): Promise<TokenInfo[]> {
  const { appId } = filter
  const all = caller.scope.profile === 'admin' && appId === undefined
  let query = ctx.db
    .selectFrom('tokens')
    .select(['id', 'name', 'email', 'expires_at', 'revoked_at', 'scope', 'made_by', 'created_at'])
    .where((eb) => {
      const ofOrg = eb(eb.ref('scope', '->>').key('org_id'), '=', filter.orgId)
      if (!all) return ofOrg
      return eb.or([ofOrg, eb(eb.ref('scope', '->>').key('org_id'), 'is', null)])
    })
    .orderBy(
      (eb) =>
        eb.and([eb('revoked_at', 'is', null), eb('expires_at', '>', new Date(ctx.clock.now()))]),
      'desc',
    )
    .orderBy('created_at', 'desc')
    .limit(all ? 2 * listMax : listMax)
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
