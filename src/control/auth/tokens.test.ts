import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { isFault } from '#core/fault.ts'
import { limits } from '#core/limits.ts'
import { ensureOrg, type Org } from '../orgs/index.ts'
import { startTestControl, type TestControl } from '../test-support.ts'
import { createToken, listTokens, mintToken, type Caller } from './index.ts'

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

test('a good token is in the list however many newer ones are revoked, and dead ones take no room', async () => {
  const { ctx } = control
  const make = () =>
    mintToken(ctx, operator, { name: 'old', scope: { profile: 'org', org_id: org.id } })
  const { id } = await make()
  await insert(limits.liveTokensPerOrgMax, { revoked: true })
  const listed = await listTokens(ctx, operator, { orgId: org.id })
  assert.equal(listed[0]?.id, id)
  await insert(limits.liveTokensPerOrgMax - 1, { revoked: false })
  await assert.rejects(make(), (error) => isFault(error, 'limit_reached'))
})
