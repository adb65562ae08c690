import { createHash, randomBytes, timingSafeEqual } from 'node:crypto'
import ipaddr from 'ipaddr.js'
import { sql } from 'kysely'
import { Fault, isFault } from '#core/fault.ts'
import { limits } from '#core/limits.ts'
import type { LoginInput, LoginMetadata, RedeemInput } from '#spec/login.ts'
import { findApp } from '../apps/index.ts'
import type { ControlContext } from '../context.ts'
import { findOrg } from '../orgs/index.ts'
import type { Db, TokenScope } from '../store/index.ts'
import { requireCovered } from './permissions.ts'
import { createToken } from './tokens.ts'
import { hashOf, verifyTokens } from './verify.ts'

/**
 * A login: a program starts it and shows an address, a person opens that and allows it with a token, the program fetches a
 * token of its own. Each step is one transaction; a login is deleted in the one that makes its token, so that nothing can
 * be fetched twice. §3.
 */

type Store = Pick<ControlContext, 'db' | 'clock'>

/** How long a program waits for its person. */
const loginLifeMs = 15 * 60_000
/** Clients ask for a new login after 30 days anyway. */
const loginTokenLifeMs = 30 * 24 * 3_600_000
/** The advisory lock under which logins are counted: "login" in ASCII. */
const countLock = 0x6c6f67

export interface Login {
  name: string
  target: string
  metadata: LoginMetadata
  redirectPort: number | null
  state: string
  pkce: boolean
  approved: boolean
}

const over = (): Fault =>
  new Fault(
    'not_found',
    'there is no such login: it was used, given up or is older than 15 minutes; start it again',
  )

/** Writes a new login down; `address` is that of the connection. Fault `limit_reached`. */
export async function startLogin(
  ctx: Store,
  input: LoginInput,
  address = '',
): Promise<{ id: string }> {
  const id = randomBytes(32).toString('base64url')
  const now = ctx.clock.now()
  const from = neighbourhood(address)
  await ctx.db.transaction().execute(async (db) => {
    await sql`select pg_advisory_xact_lock(${countLock})`.execute(db)
    await db.deleteFrom('cli_sessions').where('expires_at', '<', new Date(now)).execute()
    await requireRoom(db, { from, now })
    await db
      .insertInto('cli_sessions')
      .values({
        id_hash: hashOf(id),
        name: input.name ?? '',
        target: input.target ?? 'auth',
        metadata: JSON.stringify(input.metadata ?? {}),
        challenge: input.code_challenge ?? null,
        state: input.state ?? '',
        redirect_port: input.redirect_port ?? null,
        address: from,
        created_at: new Date(now),
        expires_at: new Date(now + loginLifeMs),
      })
      .execute()
  })
  return { id }
}

/** Who has one IPv6 address has all of its /64. */
function neighbourhood(address: string): string {
  if (!ipaddr.isValid(address)) return ''
  const parsed = ipaddr.process(address)
  return parsed instanceof ipaddr.IPv6 ? parsed.parts.slice(0, 4).join(':') : parsed.toString()
}

/** One address must not keep the others out, nor many together fill the table. Fault `limit_reached`. */
async function requireRoom(db: Db, { from, now }: { from: string; now: number }): Promise<void> {
  const { waiting, ofAddress, newOfAddress } = await db
    .selectFrom('cli_sessions')
    .select((eb) => [
      eb.fn.countAll<number>().as('waiting'),
      eb.fn.countAll<number>().filterWhere('address', '=', from).as('ofAddress'),
      eb.fn
        .countAll<number>()
        .filterWhere('address', '=', from)
        .filterWhere('created_at', '>', new Date(now - 60_000))
        .as('newOfAddress'),
    ])
    .executeTakeFirstOrThrow()
  if (newOfAddress >= limits.loginsPerMinuteMax) {
    throw new Fault(
      'limit_reached',
      `more than ${limits.loginsPerMinuteMax} logins were started from your address in the last minute; wait one and try again`,
    )
  }
  if (ofAddress >= limits.loginsWaitingPerAddressMax || waiting >= limits.loginsWaitingMax) {
    throw new Fault(
      'limit_reached',
      `${waiting} logins wait for somebody to allow them, ${ofAddress} of them from your address, which is too many; each is given up after 15 minutes: try again then`,
    )
  }
}

const rowOf = (ctx: Store, db: Db, id: string) =>
  db
    .selectFrom('cli_sessions')
    .selectAll()
    .where('id_hash', '=', hashOf(id))
    .where('expires_at', '>', new Date(ctx.clock.now()))

type Row = NonNullable<Awaited<ReturnType<ReturnType<typeof rowOf>['executeTakeFirst']>>>

/** What a login asks for. Fault `not_found`. */
export async function getLogin(ctx: Store, id: string): Promise<Login> {
  const row = await rowOf(ctx, ctx.db, id).executeTakeFirst()
  if (!row) throw over()
  const { name, target, metadata, state, redirect_port: redirectPort } = row
  const approved = row.code_hash !== null
  return { name, target, metadata, state, redirectPort, pkce: row.challenge !== null, approved }
}

/**
 * A person allows a login with a token; what is made can do no more than that token, and is narrowed by the login's locks.
 * A launch hands out no token, so it needs none. Resolves with the code that the program redeems. Faults: `not_found`,
 * `conflict` (allowed before), `unauthorized`, `forbidden`, `not_available_yet`.
 */
export async function approveLogin(
  ctx: Store,
  id: string,
  token: string,
): Promise<{ code: string }> {
  const row = await rowOf(ctx, ctx.db, id).executeTakeFirst()
  if (!row) throw over()
  if (row.code_hash)
    throw new Fault('conflict', 'this login was allowed before; nothing is left to do')
  const allowed = row.target === 'launch' ? noToken : await allow(ctx, row, token)
  const code = randomBytes(16).toString('base64url')
  const result = await ctx.db
    .updateTable('cli_sessions')
    .set({ code_hash: hashOf(code), ...allowed })
    .where('id_hash', '=', row.id_hash)
    .where('code_hash', 'is', null)
    .executeTakeFirst()
  if (result.numUpdatedRows === 0n) throw over()
  return { code }
}

const noToken = { approved_by: null, scope: null }

async function allow(ctx: Store, row: Row, token: string) {
  try {
    const caller = await verifyTokens(ctx, token)
    const scope = await lockedScope(ctx, caller.scope, row.metadata)
    requireCovered(caller, scope)
    return { approved_by: caller.tokenId, scope: JSON.stringify(scope) }
  } catch (error) {
    if (isFault(error, 'unauthorized')) await countFailure(ctx.db, row)
    throw error
  }
}

/** What the new token may do: what the person's may, narrowed to the organisation or app that the program asked for. */
async function lockedScope(
  ctx: Store,
  scope: TokenScope,
  metadata: LoginMetadata,
): Promise<TokenScope> {
  const { lock_organization: orgSlug, lock_app: appName, lock_instance: machine } = metadata
  if (machine) {
    throw new Fault(
      'not_available_yet',
      'tokens for a single machine are not available yet; log in without FLY_TOKEN_LOCK_INSTANCE',
    )
  }
  if (!orgSlug && !appName) return scope
  const org = orgSlug ? await findOrg(ctx, orgSlug) : undefined
  const app = appName ? await findApp(ctx, appName) : undefined
  if ((orgSlug && !org) || (appName && !app) || (org && app && app.org.id !== org.id)) {
    throw new Fault('not_found', 'the organization or app of this login does not exist here')
  }
  const { profile } = scope
  if (app) {
    const narrowed = profile === 'readonly' ? profile : 'deploy'
    return { profile: narrowed, org_id: app.org.id, app_id: app.id }
  }
  const narrowed = profile === 'admin' ? 'org' : profile
  return { ...scope, profile: narrowed, org_id: org?.id ?? '' }
}

/** Gives a login up that was tried too often with something wrong. */
async function countFailure(db: Db, row: Pick<Row, 'id_hash'>): Promise<void> {
  const { failures } = (await db
    .updateTable('cli_sessions')
    .set((eb) => ({ failures: eb('failures', '+', 1) }))
    .where('id_hash', '=', row.id_hash)
    .returning('failures')
    .executeTakeFirst()) ?? { failures: 0 }
  if (failures >= limits.loginFailuresMax) {
    await db.deleteFrom('cli_sessions').where('id_hash', '=', row.id_hash).execute()
  }
}

export interface Fetched {
  /** Absent for a launch, which only wants its plan back. */
  token?: string
  metadata: LoginMetadata
}

/**
 * The poll of a program: undefined until a person has allowed the login. One that was started with a challenge gives its
 * token only to `redeemLogin`. Fault `not_found`.
 */
export async function pollLogin(ctx: Store, id: string): Promise<Fetched | undefined> {
  return ctx.db.transaction().execute(async (db) => {
    const row = await rowOf(ctx, db, id).forUpdate().executeTakeFirst()
    if (!row) throw over()
    if (!row.code_hash || row.challenge !== null) return undefined
    return finish({ db, clock: ctx.clock }, row)
  })
}

/** Exchanges code and verifier for the token, once. Faults: `not_found`, `invalid`, `unauthorized`. */
export async function redeemLogin(ctx: Store, id: string, input: RedeemInput): Promise<Fetched> {
  // A wrong code must be counted, so the transaction ends well and the fault comes after it.
  const result = await ctx.db.transaction().execute(async (db) => {
    const row = await rowOf(ctx, db, id).forUpdate().executeTakeFirst()
    if (!row) return over()
    if (row.challenge === null) {
      return new Fault('invalid', 'this login has no code_challenge; poll it instead')
    }
    if (!row.code_hash) {
      return new Fault('invalid', 'nobody has allowed this login yet; open its address first')
    }
    const proof = createHash('sha256').update(input.code_verifier).digest('base64url')
    const right =
      timingSafeEqual(hashOf(input.code), row.code_hash) &&
      timingSafeEqual(hashOf(proof), hashOf(row.challenge))
    if (right) return finish({ db, clock: ctx.clock }, row)
    await countFailure(db, row)
    return new Fault('invalid', 'the code is not the one of this login, or is not whole')
  })
  if (result instanceof Fault) throw result
  return result
}

/** Makes the token and deletes the login. Who allowed it may have been revoked since. */
async function finish(ctx: Store, row: Row): Promise<Fetched> {
  const { db } = ctx
  const { metadata, scope, approved_by: madeBy } = row
  await db.deleteFrom('cli_sessions').where('id_hash', '=', row.id_hash).execute()
  if (!scope || !madeBy) return { metadata }
  const maker = await db
    .selectFrom('tokens')
    .select(['email', 'expires_at'])
    .where('id', '=', madeBy)
    .where('revoked_at', 'is', null)
    .where('expires_at', '>', new Date(ctx.clock.now()))
    .forShare()
    .executeTakeFirst()
  if (!maker) {
    throw new Fault('unauthorized', 'the token that allowed this login was revoked; start it again')
  }
  const name = `login on ${row.name || 'an unnamed computer'}`.slice(0, 100)
  const { secret } = await createToken(ctx, {
    name,
    email: maker.email,
    scope,
    lifeMs: loginTokenLifeMs,
    // A login ends when the token that allowed it does, the operator's too: it stands for that person.
    notAfter: maker.expires_at,
    madeBy,
  })
  return { token: secret, metadata }
}
