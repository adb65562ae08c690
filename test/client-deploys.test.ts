import assert from 'node:assert/strict'
import { test, type TestContext } from 'node:test'
import type { Clock } from '#core/clock.ts'
import type { Machine } from '#spec/machine.ts'
import { createApi } from '#api/server.ts'
import { ClientContacts, clientSilentMsMax, interruptAbandoned } from '#control/deploy/index.ts'
import { openHostDirectory } from '#control/hosts/index.ts'
import type { TestHost } from '#host/testing.ts'
import { eventually } from '#sys/test-support.ts'
import { announceHost, callerOf, openRealHost } from './support/real-host.ts'
import {
  configFor,
  CutOff,
  ScriptedClient,
  type Call,
  type Strategy,
} from './support/scripted-client.ts'

/** The public API over a real control and a real host, of which only the containers are fakes. */

interface Cloud {
  call: Call
  /** Lets this much time pass for control and the host. */
  pass(ms: number): void
  sweep(): Promise<number>
  host: TestHost
  /** How many requests for an app have begun. */
  heard(): number
}

async function startCloud(t: TestContext): Promise<Cloud> {
  let ahead = 0
  const now = () => Date.now() + ahead
  const { ctx, host, token } = await openRealHost(t)
  host.agent.clock = withTime(host.agent.clock, now)
  // Where control waits, the time that it waits for has passed.
  const sleep: Clock['sleep'] = async (ms) => void (ahead += ms)
  ctx.clock = { now, sleep }
  let heard = 0
  ctx.clients = new (class extends ClientContacts {
    override begin(app: string, token: string) {
      heard++
      return super.begin(app, token)
    }
  })(ctx.clock)
  ctx.hosts = await openHostDirectory({ db: ctx.db, clock: ctx.clock, log: ctx.log })
  const beat = announceHost(t, { ctx, host, now })
  return {
    host,
    pass: (ms) => {
      ahead += ms
      beat()
    },
    sweep: () => interruptAbandoned(ctx),
    heard: () => heard,
    call: callerOf(createApi(ctx), token),
  }
}

const withTime = (clock: Clock, now: () => number): Clock => ({ ...clock, now })

async function newApp(
  cloud: Cloud,
  name: string,
  { machines = 2, image = 'one' } = {},
): Promise<void> {
  await cloud.call('POST /v1/apps', { app_name: name, org_slug: 'personal' })
  for (let index = 0; index < machines; index++) {
    const config = configFor({ id: 'first', version: 0 }, image)
    const made = await cloud.call(`POST /v1/apps/${name}/machines`, { region: 'ord', config })
    assert.equal(made.status, 200, JSON.stringify(made.body))
    const { id } = made.body
    await cloud.call(`GET /v1/apps/${name}/machines/${String(id)}/wait?state=started&timeout=60`)
  }
}

const machinesOf = async (cloud: Cloud, app: string): Promise<Machine[]> =>
  (await cloud.call(`GET /v1/apps/${app}/machines`)).body as unknown as Machine[]

/** The app as it must be after a deploy, whatever happened before. */
async function assertConverged(cloud: Cloud, app: string, what: string): Promise<void> {
  const machines = await machinesOf(cloud, app)
  assert.deepEqual(
    machines.map(({ state, cordoned, config }) => [state, cordoned, config.image]),
    Array.from({ length: 2 }, () => ['started', false, 'two']),
    what,
  )
  for (const { id } of machines) {
    const lease = await cloud.call(`GET /v1/apps/${app}/machines/${id}/lease`)
    assert.equal(lease.status, 404, `${what}: a lease is left`)
  }
  cloud.pass(clientSilentMsMax)
  await cloud.sweep()
  const { body } = await cloud.call(`GET /api/v1/apps/${app}/releases`)
  const statuses = (body['releases'] as { status: string }[]).map(({ status }) => status)
  assert.equal(statuses[0], 'complete', what)
  assert.ok(!statuses.includes('running') && !statuses.includes('pending'), what)
}

test('deploys that clients drive', async (t) => {
  const cloud = await startCloud(t)
  for (const strategy of ['rolling', 'immediate', 'canary', 'bluegreen'] as const) {
    await t.test(
      `DEP-24: killed at any call of a ${strategy} deploy and run again it converges`,
      () => killedAnywhere(cloud, strategy),
    )
  }
  await t.test('a release of a client that is gone ends, and what it left goes', () =>
    goneClient(cloud),
  )
  await t.test('a release whose client waits or holds a lease goes on', () => slowClient(cloud))
  await t.test('of two deploys at once one is told who is in the way and changes nothing', () =>
    twoAtOnce(cloud),
  )
})

async function killedAnywhere(cloud: Cloud, strategy: Strategy): Promise<void> {
  const whole = new ScriptedClient({ call: cloud.call, app: `${strategy}-whole` })
  await newApp(cloud, `${strategy}-whole`)
  await whole.deploy(strategy, 'two')
  await assertConverged(cloud, `${strategy}-whole`, 'uncut')
  for (const calls of whole.changes.slice(0, -1)) {
    const app = `${strategy}-${calls}`
    // With the same image again a client does not see that there are machines of two releases.
    await newApp(cloud, app, { image: calls % 2 === 0 ? 'two' : 'one' })
    const cut = new ScriptedClient({ call: cloud.call, app, callsLeft: calls })
    await assert.rejects(cut.deploy(strategy, 'two'), CutOff)
    await deployAgain(cloud, app, strategy)
    await assertConverged(cloud, app, `killed after ${calls} calls`)
  }
}

/** As a person does it: what is refused is tried again a little later. */
async function deployAgain(cloud: Cloud, app: string, strategy: Strategy): Promise<void> {
  const refusals: string[] = []
  for (let attempt = 1; attempt <= 3; attempt++) {
    try {
      await new ScriptedClient({ call: cloud.call, app }).deploy(strategy, 'two')
      return
    } catch (error) {
      refusals.push((error as Error).message)
      // A canary holds its lease for its whole wait timeout.
      cloud.pass(strategy === 'canary' ? 301_000 : 16_000)
    }
  }
  assert.fail(`not deployed: ${refusals.join('; ')}`)
}

async function goneClient(cloud: Cloud): Promise<void> {
  await newApp(cloud, 'gone')
  const before = await machinesOf(cloud, 'gone')
  // Killed when one green machine is there.
  const client = new ScriptedClient({ call: cloud.call, app: 'gone', callsLeft: 6 })
  await assert.rejects(client.deploy('bluegreen', 'two'), CutOff)
  assert.equal((await machinesOf(cloud, 'gone')).length, 3)
  assert.equal(await cloud.sweep(), 0, 'it was heard just now')
  cloud.pass(clientSilentMsMax)
  assert.equal(await cloud.sweep(), 1)
  assert.deepEqual(
    (await machinesOf(cloud, 'gone')).map(({ id }) => id),
    before.map(({ id }) => id),
  )
}

async function slowClient(cloud: Cloud): Promise<void> {
  await newApp(cloud, 'slow', { machines: 1 })
  const [machine] = await machinesOf(cloud, 'slow')
  assert.ok(machine)
  const made = await cloud.call('POST /api/v1/releases', { app_name: 'slow', image: 'i' })
  const { id } = made.body['release'] as { id: string }
  const move = (status: string) => cloud.call(`PATCH /api/v1/releases/${id}`, { status })
  await move('running')
  const before = cloud.heard()
  const waiting = cloud.call(
    `GET /v1/apps/slow/machines/${machine.id}/wait?state=stopped&timeout=60`,
  )
  await eventually('its wait has begun', () => cloud.heard() > before)
  cloud.pass(clientSilentMsMax)
  assert.equal(await cloud.sweep(), 0, 'it waits for a command')
  const lease = await cloud.call(`POST /v1/apps/slow/machines/${machine.id}/lease?ttl=300`)
  const { nonce } = lease.body['data'] as { nonce: string }
  await cloud.call(`POST /v1/apps/slow/machines/${machine.id}/stop`, {}, nonce)
  await waiting
  cloud.pass(clientSilentMsMax)
  assert.equal(await cloud.sweep(), 0, 'it holds a lease')
  cloud.pass(241_000)
  assert.equal(await cloud.sweep(), 1)
  assert.equal((await move('running')).body['status'], 'running')
  cloud.pass(clientSilentMsMax)
  assert.equal(await cloud.sweep(), 1)
  await new ScriptedClient({ call: cloud.call, app: 'slow' }).deploy('rolling', 'two')
  const late = await move('running')
  assert.equal(late.status, 412)
  assert.match(String(late.body['error']), /v2 of .+ has taken its place/)
  assert.equal((await move('complete')).body['status'], 'interrupted')
}

async function twoAtOnce(cloud: Cloud): Promise<void> {
  await newApp(cloud, 'both')
  // The first is in the middle: it holds its leases.
  const first = new ScriptedClient({ call: cloud.call, app: 'both', callsLeft: 11 })
  await assert.rejects(first.deploy('rolling', 'two'), CutOff)
  const before = await machinesOf(cloud, 'both')
  const second = new ScriptedClient({ call: cloud.call, app: 'both' })
  await assert.rejects(
    second.deploy('rolling', 'three'),
    /lease currently held by .+@.+, expires at/,
  )
  assert.deepEqual(
    (await machinesOf(cloud, 'both')).map(({ instance_id }) => instance_id),
    before.map(({ instance_id }) => instance_id),
  )
}
