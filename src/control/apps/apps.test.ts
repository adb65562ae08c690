import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { sql } from 'kysely'
import { isFault } from '#core/fault.ts'
import { limits } from '#core/limits.ts'
import { currentReleaseTimes, startClientRelease } from '../deploy/index.ts'
import { createOrg, ensureNetwork, type Org } from '../orgs/index.ts'
import { setReleaseStatus } from '../store/releases.ts'
import { startTestControl, type TestControl } from '../test-support.ts'
import { countApps, createApp, listApps } from './index.ts'

let control: TestControl

before(async () => {
  control = await startTestControl([])
})
after(() => control.close())

const newOrg = (name: string) => createOrg(control.ctx, name)

async function fill(org: Org, count: number): Promise<void> {
  const network = await ensureNetwork(control.ctx, org.id, 'default')
  await sql`
    insert into apps (id, name, org_id, network)
    select ${org.slug} || n, ${org.slug} || lpad(n::text, 5, '0'), ${org.id}, ${network}::int
    from generate_series(1, ${count}::int) n`.execute(control.ctx.db)
}

const atLimit = (pattern: RegExp) => (error: unknown) =>
  isFault(error, 'limit_reached') && pattern.test(error.message)

test('an organization has so many apps, also when several are made at once, and a deleted one makes room', async () => {
  const { ctx } = control
  const org = await newOrg('Full')
  await fill(org, limits.appsPerOrgMax - 1)
  const tries = await Promise.allSettled([1, 2, 3].map(() => createApp(ctx, { org })))
  const refused = tries.filter((one) => one.status === 'rejected')
  assert.equal(refused.length, 2)
  for (const { reason } of refused) assert.ok(atLimit(/full has 5000 apps.*apps destroy/)(reason))
  const gone = { deleted_at: new Date() }
  await ctx.db.updateTable('apps').set(gone).where('id', '=', 'full1').execute()
  await createApp(ctx, { org })
  await createApp(ctx, { org: await newOrg('Empty') })
})

test('an organization has so many networks; those there are can be used', async () => {
  const { ctx } = control
  const org = await newOrg('Webs')
  await sql`
    insert into networks (org_id, name)
    select ${org.id}, 'net' || n from generate_series(1, ${limits.networksPerOrgMax}::int) n
  `.execute(ctx.db)
  await createApp(ctx, { org, network: 'net7' })
  await assert.rejects(createApp(ctx, { org, network: 'one-more' }), atLimit(/"one-more"/))
})

test('of very many apps a list shows the first, and the count all', async () => {
  const { ctx } = control
  for (const name of ['List A', 'List B', 'List C']) await fill(await newOrg(name), 3_400)
  assert.equal((await listApps(ctx, {})).length, limits.appsPerListMax)
  assert.ok((await countApps(ctx, {})) >= 10_200)
  const org = await newOrg('Few')
  const app = await createApp(ctx, { org, role: 'builder' })
  for (const filter of [{ orgId: org.id }, { role: 'builder' }, { id: app.id }]) {
    assert.deepEqual(
      (await listApps(ctx, filter)).map(({ id }) => id),
      [app.id],
    )
    assert.equal(await countApps(ctx, filter), 1)
  }
})

test('when every app was released last is one query', async () => {
  const { ctx } = control
  const org = await newOrg('Released')
  const given = { image: 'i', strategy: 'rolling', definition: null, user: 'u', tokenId: 't' }
  const times: Record<string, string> = {}
  for (let n = 0; n < 5; n++) {
    const app = await createApp(ctx, { org })
    for (const status of ['complete', 'complete', 'failed'] as const) {
      const { id, created_at } = await startClientRelease(ctx, app, given)
      await setReleaseStatus(ctx, { id, status })
      if (status === 'complete') times[app.name] = created_at
    }
  }
  await createApp(ctx, { org })
  let queries = 0
  const db = ctx.db.withPlugin({
    transformQuery: ({ node }) => {
      queries++
      return node
    },
    transformResult: async ({ result }) => result,
  })
  assert.deepEqual(await currentReleaseTimes({ db }, { orgId: org.id }), times)
  assert.equal(queries, 1)
})
