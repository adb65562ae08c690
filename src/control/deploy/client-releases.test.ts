import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { systemClock } from '#core/clock.ts'
import { isFault } from '#core/fault.ts'
import { createApp } from '../apps/index.ts'
import { createMachine } from '../machines/index.ts'
import { ensureOrg } from '../orgs/index.ts'
import { startTestControl, type TestControl } from '../test-support.ts'
import { ClientContacts, getRelease, interruptAbandoned, startClientRelease } from './index.ts'

let control: TestControl
const given = {
  image: 'i',
  strategy: 'rolling',
  definition: null,
  user: 'a@b',
  tokenId: 'somebody',
}

before(async () => {
  control = await startTestControl()
})
after(() => control.close())

test('a release that cannot be looked at keeps no other from being ended', async () => {
  const { ctx } = control
  const org = await ensureOrg(ctx, 'personal', 'Personal')
  const releases = []
  for (const name of ['broken', 'fine']) {
    const app = await createApp(ctx, { org, name })
    releases.push({ app, id: (await startClientRelease(ctx, app, given)).id })
  }
  class Broken extends ClientContacts {
    override lastHeard(app: string, token: string): number {
      if (app === 'broken') throw new Error('it is broken')
      return super.lastHeard(app, token)
    }
  }
  const clock = { ...ctx.clock, now: () => Date.now() + 3_600_000 }
  const world = { ...ctx, clock, clients: new Broken(ctx.clock) }
  assert.equal(await interruptAbandoned(world), 1)
  const states = releases.map(async ({ app, id }) => {
    return (await getRelease(ctx, app, id)).status
  })
  assert.deepEqual(await Promise.all(states), ['pending', 'interrupted'])
})

test('of two clients that deploy at once where there are no machines one is told who is at it', async () => {
  const { ctx } = control
  const app = await createApp(ctx, { org: await ensureOrg(ctx, 'personal', 'Personal') })
  let lateMs = 0
  const clock = { ...systemClock, now: () => Date.now() + lateMs }
  const clients = new ClientContacts(clock)
  const world = { ...ctx, clock, clients }
  const start = (tokenId: string) => startClientRelease(world, app, { ...given, tokenId })
  const inTheWay = (error: unknown) =>
    isFault(error, 'conflict') && /v1, started by a@b at .+ first machines/.test(error.message)
  const tries = await Promise.allSettled([start('one'), start('two')])
  const refused = tries.filter((one) => one.status === 'rejected').map(({ reason }) => reason)
  assert.equal(refused.length, 1)
  assert.ok(inTheWay(refused[0]), String(refused[0]))
  // What the first one makes does not let the second in, which found nothing and would make as many.
  control.beat()
  await createMachine(ctx, app, { config: { image: 'x' } }, { owner: 'a@b' })
  await assert.rejects(start('two'), inTheWay)
  lateMs = 12_000
  const holder = tries[0]?.status === 'fulfilled' ? 'one' : 'two'
  clients.begin(app.name, holder)()
  clients.begin(app.name, 'another')()
  lateMs = 24_000
  await assert.rejects(start('three'), inTheWay)
  clients.begin(app.name, 'another')()
  lateMs = 36_000
  assert.equal((await start('three')).version, 2, 'only the word of its own client counts')
})

test('a release whose client is dead ends, however often others of the same user ask', async () => {
  const { ctx } = control
  const app = await createApp(ctx, { org: await ensureOrg(ctx, 'personal', 'Personal') })
  const { id } = await startClientRelease(ctx, app, { ...given, tokenId: 'dead' })
  const clock = { ...systemClock, now: () => Date.now() + 61_000 }
  const clients = new ClientContacts(ctx.clock)
  const world = { ...ctx, clock, clients }
  clients.begin(app.name, 'living')
  await interruptAbandoned(world)
  assert.equal((await getRelease(ctx, app, id)).status, 'interrupted')
})

test('control that stops while it waits for leases says so', async () => {
  const { ctx } = control
  const [host] = control.hosts
  assert.ok(host)
  const app = await createApp(ctx, { org: await ensureOrg(ctx, 'personal', 'Personal') })
  control.beat()
  const make = (releaseId: string) =>
    createMachine(
      ctx,
      app,
      {
        config: {
          image: 'x',
          metadata: {
            fly_release_id: releaseId,
            fly_platform_version: 'v2',
            fly_process_group: 'app',
            fly_bluegreen_deployment_tag: releaseId,
          },
        },
      },
      { owner: 'a@b' },
    )
  await make('blue')
  const cut = { ...given, strategy: 'bluegreen', tokenId: 'dead' }
  await make((await startClientRelease(ctx, app, cut)).id)
  host.leasesEndAt = Math.floor(Date.now() / 1000) + 8
  const stop = new AbortController()
  const begun = startClientRelease({ ...ctx, stopping: stop.signal }, app, given)
  setTimeout(() => stop.abort(), 200)
  await assert.rejects(
    begun,
    (error) => isFault(error, 'not_available_yet') && /control is stopping/.test(error.message),
  )
  host.leasesEndAt = 1
})
