import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { createApp } from '../apps/index.ts'
import { ensureOrg } from '../orgs/index.ts'
import { startTestControl, type TestControl } from '../test-support.ts'
import { ClientContacts, getRelease, interruptAbandoned, startClientRelease } from './index.ts'

let control: TestControl

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
    const given = { image: 'i', strategy: 'rolling', definition: null, user: 'a@b' }
    releases.push({ app, id: (await startClientRelease(ctx, app, given)).id })
  }
  class Broken extends ClientContacts {
    override lastHeard(app: string, user: string): number {
      if (app === 'broken') throw new Error('it is broken')
      return super.lastHeard(app, user)
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
