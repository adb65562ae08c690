import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { isFault } from '#core/fault.ts'
import { limits } from '#core/limits.ts'
import { ensureOrg, type Org } from '../orgs/index.ts'
import { startTestControl, type TestControl } from '../test-support.ts'
import {
  createToken,
  listTokens,
  logOut,
  mintToken,
  revokeTokenFor,
  verifyTokens,
  type Caller,
} from './index.ts'

let control: TestControl
let org: Org
let operator: Caller

before(async () => {
  control = await startTestControl([])
  org = await ensureOrg(control.ctx, 'crowded', 'Crowded')
  const scope = { profile: 'admin' } as const
  const { id, expiresAt } = await createToken(control.ctx, { name: 'a', email: 'a@b', scope })
  operator = { tokenId: id, email: 'a@b', scope, expiresAt, madeBy: null }
})
after(() => control.close())

const insert = (count: number, { revoked }: { revoked: boolean }) =>
  control.ctx.db
    .insertInto('tokens')
    .values(
      Array.from({ length: count }, (_, n) => ({
        id: `${revoked ? 'dead' : 'live'}${n}`,
        name: 't',
        hash: Buffer.from(`${revoked}${n}`),
        email: 'a@b',
        scope: JSON.stringify({ profile: 'org', org_id: org.id }),
        expires_at: new Date(Date.now() + 3_600_000),
        revoked_at: revoked ? new Date() : null,
        made_by: operator.tokenId,
      })),
    )
    .execute()

const mintBy = async (caller: Caller, profile: 'admin' | 'org') => {
  const scope = profile === 'admin' ? { profile } : { profile, org_id: org.id }
  const { id, secret } = await mintToken(control.ctx, caller, { name: 't', scope })
  return { id, secret, caller: await verifyTokens(control.ctx, secret) }
}
const isGood = (secret: string) =>
  verifyTokens(control.ctx, secret).then(
    () => true,
    () => false,
  )

test("SEC-21: the operator's list of an organization has the tokens of none, and nobody else's has", async () => {
  const { ctx } = control
  const leaked = await mintBy(operator, 'admin')
  const ofOrg = await mintBy(operator, 'org')
  const idsOf = async (caller: Caller) =>
    (await listTokens(ctx, caller, { orgId: org.id })).map(({ id }) => id)
  assert.deepEqual(await idsOf(operator), [operator.tokenId, leaked.id, ofOrg.id])
  assert.deepEqual(await idsOf(ofOrg.caller), [ofOrg.id])
  await revokeTokenFor(ctx, operator, leaked.id)
  assert.equal(await isGood(leaked.secret), false)
})

test('SEC-21: what a revoked token made ends with it, to the last; a session that is left keeps what it made', async () => {
  const { ctx } = control
  const session = await mintBy(operator, 'admin')
  const child = await mintBy(session.caller, 'org')
  const grandchild = await mintBy(child.caller, 'org')
  const other = await mintBy(operator, 'org')
  await logOut(ctx, session.caller)
  assert.deepEqual(await Promise.all([session, child].map(({ secret }) => isGood(secret))), [
    false,
    true,
  ])
  const late = Array.from({ length: 20 }, () => mintBy(child.caller, 'org'))
  const [made, revoked] = await Promise.all([
    Promise.allSettled(late),
    revokeTokenFor(ctx, operator, session.id),
  ])
  const inTime = made.flatMap((one) => (one.status === 'fulfilled' ? [one.value] : []))
  for (const { secret } of [child, grandchild, ...inTime]) assert.equal(await isGood(secret), false)
  assert.ok(revoked >= 2 + inTime.length, `${revoked} ended`)
  assert.equal(await isGood(other.secret), true)
  assert.equal(await revokeTokenFor(ctx, operator, session.id), 0, 'they end once')
})

test("SEC-21: a token ends with its maker at the latest, but for what the operator's sessions make", async () => {
  const { ctx } = control
  const endOf = async (profile: 'admin' | 'org') => {
    const scope = profile === 'admin' ? { profile } : { profile, org_id: org.id }
    const lifeMs = 3_600_000
    const { secret } = await mintToken(ctx, operator, { name: 'short', scope, lifeMs })
    const maker = await verifyTokens(ctx, secret)
    const made = await mintToken(ctx, maker, { name: 't', scope, lifeMs: 1_000 * lifeMs })
    return made.expiresAt.getTime() - maker.expiresAt.getTime()
  }
  assert.equal(await endOf('org'), 0)
  assert.ok((await endOf('admin')) > 900 * 3_600_000)
})

test('a good token is in the list however many newer ones are revoked, and dead ones take no room', async () => {
  const { ctx } = control
  const make = () =>
    mintToken(ctx, operator, { name: 'old', scope: { profile: 'org', org_id: org.id } })
  const { id } = await make()
  await insert(limits.liveTokensPerOrgMax, { revoked: true })
  const listed = await listTokens(ctx, operator, { orgId: org.id })
  assert.ok(listed.some((token) => token.id === id))
  await insert(limits.liveTokensPerOrgMax - 1, { revoked: false })
  await assert.rejects(make(), (error) => isFault(error, 'limit_reached'))
})
