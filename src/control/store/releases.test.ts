import assert from 'node:assert/strict'
import { hostname } from 'node:os'
import { after, before, test } from 'node:test'
import { systemClock } from '#core/clock.ts'
import { isFault } from '#core/fault.ts'
import type { DeployInput, DeployProgress } from '#spec/release.ts'
import { followProgress } from './release-follow.ts'
import { appendProgress } from './release-progress.ts'
import { claimAbandoned, saveStep, touchRun } from './release-runs.ts'
import {
  createRelease,
  currentRelease,
  getRelease,
  listReleases,
  setReleaseStatus,
  type NewRelease,
} from './releases.ts'
import { startTestPostgres, type TestPostgres } from './test-support.ts'

let pg: TestPostgres
before(async () => {
  pg = await startTestPostgres()
  await pg.db.insertInto('orgs').values({ id: 'o', slug: 'o', name: 'O' }).execute()
  await pg.db.insertInto('networks').values({ org_id: 'o', name: 'default' }).execute()
})
after(() => pg.close())

let apps = 0
async function newApp(): Promise<string> {
  const id = `a${++apps}`
  await pg.db
    .insertInto('apps')
    .values({ id, name: id, org_id: 'o', network: 1, deleted_at: null })
    .execute()
  return id
}

const input: DeployInput = { definition: {}, image: 'i' }
const release = (appId: string, over: Partial<NewRelease> = {}): NewRelease => ({
  appId,
  driver: 'server',
  status: 'running',
  strategy: 'rolling',
  description: 'Deploy',
  reason: '',
  imageRef: 'r/i@sha256:1',
  user: 'me@example.com',
  definition: { app: 'a' },
  input,
  step: { phase: 'start' },
  ...over,
})

test('DEP-1: versions count up within an app, also for releases made at once', async () => {
  const appId = await newApp()
  const make = () => createRelease(pg, release(appId, { driver: 'client', status: 'pending' }))
  const made = await Promise.all(Array.from({ length: 6 }, make))
  assert.deepEqual(
    made.map((one) => one.version).toSorted((a, b) => a - b),
    [1, 2, 3, 4, 5, 6],
  )
  assert.deepEqual(
    (await listReleases(pg, { appId })).map((one) => one.version),
    [6, 5, 4, 3, 2, 1],
  )
  assert.equal((await createRelease(pg, release(await newApp()))).version, 1)
})

test('a second server release of the same app is refused with the name of the first', async () => {
  const appId = await newApp()
  const first = await createRelease(pg, release(appId))
  await assert.rejects(createRelease(pg, release(appId)), (error) => {
    assert.ok(isFault(error, 'conflict'))
    assert.match(error.message, /release v1 of this app is running, started by me@example\.com/)
    return true
  })
  await setReleaseStatus(pg, { id: first.id, status: 'failed', message: 'it broke' })
  assert.equal((await createRelease(pg, release(appId))).version, 2)
})

test('DEP-5: a client begins no release while the cloud deploys the app, and is told whose that is', async () => {
  const appId = await newApp()
  const first = await createRelease(pg, release(appId))
  const second = { driver: 'client', status: 'pending' } as const
  await assert.rejects(createRelease(pg, release(appId, second)), (error) => {
    assert.ok(isFault(error, 'conflict'))
    return /release v1 of this app is running, started by .+; wait/.test(error.message)
  })
  await setReleaseStatus(pg, { id: first.id, status: 'complete' })
  const after = await createRelease(pg, release(appId, second))
  const third = await createRelease(pg, release(appId, second))
  await setReleaseStatus(pg, { id: third.id, status: 'complete' })
  assert.equal((await getRelease(pg, { appId, id: after.id })).status, 'interrupted', 'superseded')
})

test('a release that is over stays what it became, and its definition is current only when it is complete', async () => {
  const appId = await newApp()
  const first = await createRelease(pg, release(appId, { definition: { n: 1 } }))
  await setReleaseStatus(pg, { id: first.id, status: 'complete' })
  const second = await createRelease(pg, release(appId, { definition: { n: 2 } }))
  assert.deepEqual((await currentRelease(pg, { appId }))?.definition, { n: 2 })
  await setReleaseStatus(pg, { id: second.id, status: 'failed' })
  assert.deepEqual((await currentRelease(pg, { appId }))?.definition, { n: 1 })
  await assert.rejects(setReleaseStatus(pg, { id: second.id, status: 'running' }), (error) =>
    isFault(error, 'precondition_failed'),
  )
  await assert.rejects(getRelease(pg, { appId: 'other', id: first.id }), (error) =>
    isFault(error, 'not_found'),
  )
})

async function collect(appId: string, id: string, follow = true): Promise<DeployProgress[]> {
  const signal = AbortSignal.timeout(10_000)
  const lines: DeployProgress[] = []
  const ctx = { db: pg.db, clock: systemClock }
  for await (const line of followProgress(ctx, { appId, id, follow, signal })) lines.push(line)
  assert.ok(!signal.aborted, 'the end was not seen')
  return lines
}

test('progress is followed from its first line to the one with the status, with no line lost', async () => {
  const appId = await newApp()
  const { id } = await createRelease(pg, release(appId))
  await appendProgress(pg, id, { level: 'info', message: 'early' })
  const followed = collect(appId, id)
  await Promise.all(
    Array.from({ length: 20 }, (_, n) =>
      appendProgress(pg, id, { level: 'log', message: `line ${n}`, machine: 'm' }),
    ),
  )
  await setReleaseStatus(pg, { id, status: 'complete', message: 'done' })
  const lines = await followed
  assert.deepEqual(
    lines.map((line) => line.seq),
    Array.from({ length: 22 }, (_, n) => n + 1),
  )
  assert.equal(lines[0]?.message, 'early')
  assert.equal(lines[1]?.machine, 'm')
  assert.deepEqual([lines.at(-1)?.message, lines.at(-1)?.status], ['done', 'complete'])
  assert.deepEqual(await collect(appId, id, false), lines)
})

test('a release of a client ends its followers too', async () => {
  const appId = await newApp()
  const { id } = await createRelease(pg, release(appId, { driver: 'client', status: 'running' }))
  const followed = collect(appId, id)
  await setReleaseStatus(pg, { id, status: 'interrupted' })
  assert.equal((await followed).at(-1)?.status, 'interrupted')
})

test('the run of a dead process is taken over once, and that of a living one is left alone', async () => {
  const appId = await newApp()
  const { id } = await createRelease(pg, release(appId))
  await saveStep(pg, id, { phase: 'machines' })
  await touchRun(pg, id)
  const ctx = { db: pg.db, clock: systemClock }
  assert.deepEqual(await claimAbandoned(ctx), [])
  await pg.db
    .updateTable('release_runs')
    .set({ runner: `${hostname()}:999999:1` })
    .where('release_id', '=', id)
    .execute()
  await assert.rejects(saveStep(pg, id, {}), (error) => isFault(error, 'conflict'))
  const claims = (await Promise.all([claimAbandoned(ctx), claimAbandoned(ctx)])).flat()
  assert.deepEqual(
    claims.map((claim) => [claim.release.id, claim.step]),
    [[id, { phase: 'machines' }]],
  )
  await saveStep(pg, id, { phase: 'later' })
})

test('TOML-3: a definition comes back as it was written, the order of its keys included', async () => {
  const appId = await newApp()
  const definition = {
    app: 'a',
    primary_region: 'ord',
    build: {},
    http_service: { z: 1, internal_port: 80 },
  }
  const { id } = await createRelease(pg, release(appId, { definition }))
  assert.equal(
    JSON.stringify((await getRelease(pg, { appId, id })).definition),
    JSON.stringify(definition),
  )
})
