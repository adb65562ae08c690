import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { createApp } from '#control/apps/index.ts'
import { createToken } from '#control/auth/index.ts'
import { ensureOrg } from '#control/orgs/index.ts'
import { startTestControl, type TestControl } from '#control/test-support.ts'
import { createApi } from './server.ts'

let control: TestControl

before(async () => {
  control = await startTestControl([])
})
after(() => control.close())

test('PRX-70: an address in the network of another organization needs leave to see that one', async () => {
  const { ctx } = control
  const own = await ensureOrg(ctx, 'own', 'Own')
  await ensureOrg(ctx, 'foreign', 'Foreign')
  const app = await createApp(ctx, { org: own, name: 'web' })
  const tokenOf = async (scope: Parameters<typeof createToken>[1]['scope']) =>
    (await createToken(ctx, { name: 't', email: 'a@b', scope })).secret
  const tokens = {
    org: await tokenOf({ profile: 'org', org_id: own.id }),
    deploy: await tokenOf({ profile: 'deploy', org_id: own.id, app_id: app.id }),
    operator: await tokenOf({ profile: 'admin' }),
  }
  const api = createApi(ctx)
  const allocate = async (token: string, org_slug: string) => {
    const answer = await api.request('/v1/apps/web/ip_assignments', {
      method: 'POST',
      headers: { authorization: `Bearer ${token}` },
      body: JSON.stringify({ type: 'private_v6', org_slug, network: 'inner' }),
    })
    return answer.status
  }
  const got = []
  for (const token of Object.values(tokens)) {
    got.push([await allocate(token, 'own'), await allocate(token, 'foreign')])
  }
  assert.deepEqual(got, [
    [200, 403],
    [200, 403],
    [200, 200],
  ])
})
