import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { sql } from 'kysely'
import { limits } from '#core/limits.ts'
import { createApp, type AppRecord } from './apps/index.ts'
import { createToken, revokeTokenFor, verifyTokens } from './auth/index.ts'
import { followProgress, startClientRelease } from './deploy/index.ts'
import { forgetEnded } from './forget-ended.ts'
import { createMachine, destroyMachine, getMachine } from './machines/index.ts'
import { ensureOrg } from './orgs/index.ts'
import { setReleaseStatus } from './store/releases.ts'
import { startTestControl, type TestControl } from './test-support.ts'
import { createVolume, doomVolumes, destroyAbandonedVolumes } from './volumes/index.ts'

let control: TestControl
let app: AppRecord
let laterMs = 0

before(async () => {
  control = await startTestControl()
  const { clock } = control.ctx
  control.ctx.clock = { ...clock, now: () => clock.now() + laterMs }
  const org = await ensureOrg(control.ctx, 'personal', 'Personal')
  app = await createApp(control.ctx, { org })
  control.beat()
})
after(() => control.close())

async function counts(): Promise<Record<string, number>> {
  const { rows } = await sql<Record<string, number>>`select
    (select count(*) from machine_placements) machines,
    (select count(*) from volume_placements) volumes,
    (select count(*) from tokens) tokens,
    (select count(*) from release_progress) lines,
    (select count(*) from builds) builds,
    (select count(*) from client_builds) client_builds`.execute(control.ctx.db)
  return rows[0] as Record<string, number>
}

const given = { image: 'i', strategy: 'rolling', definition: null, user: 'u', tokenId: 't' }
const admin = { profile: 'admin' } as const

test('what ended is readable for its time and then forgotten; what goes on is kept however old it is', async () => {
  const { ctx } = control
  const config = { image: 'x' }
  const kept = await createMachine(ctx, app, { config }, { owner: 'u' })
  const gone = await createMachine(ctx, app, { config }, { owner: 'u' })
  await destroyMachine(ctx, app, gone.id, { kill: true, source: 'user' })
  assert.equal((await getMachine(ctx, app, gone.id)).state, 'destroyed')
  await createVolume(ctx, app, { name: 'data', size_gb: 1 })
  await doomVolumes(ctx, app)
  await destroyAbandonedVolumes(ctx)
  await createVolume(ctx, app, { name: 'data', size_gb: 1 })

  const first = await createToken(ctx, { name: 'first', email: 'a@b', scope: admin })
  const ended = { name: 'x', email: 'a@b', scope: admin, madeBy: first.id }
  const revoked = await createToken(ctx, ended)
  await createToken(ctx, { ...ended, madeBy: revoked.id })
  await revokeTokenFor(ctx, await verifyTokens(ctx, first.secret), revoked.id)
  await createToken(ctx, { ...ended, lifeMs: 1 })

  const over = await startClientRelease(ctx, app, given)
  await setReleaseStatus(ctx, { id: over.id, status: 'failed' })
  const open = await startClientRelease(ctx, app, given)
  const line = { level: 'info' as const, message: 'm' }
  const progress = { ...line, release_id: open.id, seq: 1, machine: null, status: null }
  await ctx.db.insertInto('release_progress').values(progress).execute()
  for (const status of ['complete', 'running', 'waiting'] as const) {
    const build = { id: status, app_id: app.id, status, runner: '' }
    await ctx.db
      .insertInto('builds')
      .values({
        ...build,
        image_ref: null,
        digest: null,
        size: null,
        error: null,
        finished_at: null,
      })
      .execute()
  }
  // More than one statement takes.
  await sql`insert into client_builds (app_id, builder_type, status)
    select ${app.id}, 'x', 'running' from generate_series(1, 2500)`.execute(ctx.db)

  const all = await counts()
  assert.deepEqual(all, {
    machines: 2,
    volumes: 2,
    tokens: 4,
    lines: 2,
    builds: 3,
    client_builds: 2500,
  })
  laterMs = limits.endedKeptMs - 60_000
  assert.equal(await forgetEnded(ctx), 0)
  assert.deepEqual(await counts(), all)
  laterMs = limits.endedKeptMs + 60_000
  await forgetEnded(ctx)
  assert.deepEqual(await counts(), {
    machines: 1,
    volumes: 1,
    tokens: 1,
    lines: 1,
    builds: 2,
    client_builds: 0,
  })
  assert.equal((await getMachine(ctx, app, kept.id)).id, kept.id)
  assert.equal(await forgetEnded(ctx), 0)
  const { signal } = new AbortController()
  const told = []
  for await (const one of followProgress(ctx, app, over.id, { follow: true, signal })) {
    told.push(one.status)
  }
  assert.deepEqual(told, ['failed'], 'who follows a release without lines is told its end')
})

test('an ended token stays as long as one that it made is good', async () => {
  const { ctx } = control
  laterMs = 0
  const day = 24 * 3_600_000
  const maker = await createToken(ctx, { name: 'm', email: 'a@b', scope: admin, lifeMs: day })
  const lasting = { name: 'l', email: 'a@b', scope: admin, lifeMs: 100 * day, madeBy: maker.id }
  await createToken(ctx, lasting)
  const has = async () => {
    await forgetEnded(ctx)
    return (await ctx.db.selectFrom('tokens').select('id').execute()).some(
      ({ id }) => id === maker.id,
    )
  }
  laterMs = 40 * day
  assert.equal(await has(), true)
  laterMs = 140 * day
  assert.equal(await has(), false)
})
