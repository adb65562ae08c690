import assert from 'node:assert/strict'
import http from 'node:http'
import { connect } from 'node:net'
import { text } from 'node:stream/consumers'
import { after, before, describe, test } from 'node:test'
import { WebSocket } from 'ws'
import { systemClock } from '#core/clock.ts'
import { eventually } from '#sys/test-support.ts'
import { runEdge, type Edge } from './index.ts'
import {
  get,
  makeWorld,
  release,
  settled,
  silentLog,
  webService,
  type World,
} from './test-support.ts'

describe('the edge, cold', () => {
  let world: World
  let edge: Edge
  before(async () => {
    world = await makeWorld({ hold_ms: 3_000, autostop_interval_ms: 700 })
    edge = await runEdge(world.settings, silentLog)
  })
  after(async () => {
    await edge?.close()
    await world?.close()
  })
  const off = (port: number) => webService(port, { autostop: 'off' })

  test('a sleeping app: GET, POSTs of 10 kB and 1 MB and a WebSocket are held, then answered', async () => {
    const services = [off(world.host.appPort)]
    for (const app of ['cold-get', 'cold-small', 'cold-large', 'cold-ws']) {
      await world.host.add(`m-${app}`, { app, state: 'stopped', services })
    }
    await settled(world)
    assert.equal((await get(world.settings, { host: 'cold-get.hangar.localhost' })).status, 200)
    for (const [app, size] of [
      ['cold-small', 10_000],
      ['cold-large', 1_000_000],
    ] as const) {
      const posted = await get(world.settings, {
        host: `${app}.hangar.localhost`,
        method: 'POST',
        body: Buffer.alloc(size, 'x'),
      })
      assert.equal(posted.status, 200, posted.text)
      assert.equal((JSON.parse(posted.text) as { bytes: number }).bytes, size)
    }
    const socket = openSocket(world, 'cold-ws')
    assert.equal(await ask(socket, 'hello'), 'm-cold-ws: hello')
    for (const app of ['cold-get', 'cold-small', 'cold-large', 'cold-ws']) {
      assert.equal(world.host.machines.get(`m-${app}`)?.wakes, 1, app)
    }
    // The woken WebSocket lives in HAProxy alone.
    const row = world.host.machines.get('m-cold-ws')!.row
    await world.host.put(row.id, { state: 'stopping', ready: false })
    await settled(world)
    await eventually('its session is counted', () => world.edges.sessions(row.id) === 1)
    assert.equal(await ask(socket, 'still there'), 'm-cold-ws: still there')
    socket.close()
    await eventually('its session is over', () => world.edges.sessions(row.id) === 0)
  })

  test('fifty at once share one start, though the app listens late', async () => {
    world.host.listenLateMs = 150
    const machine = await world.host.add('m-fifty', {
      app: 'fifty',
      state: 'suspended',
      services: [off(world.host.appPort)],
    })
    await settled(world)
    const all = await Promise.all(
      Array.from({ length: 50 }, () => get(world.settings, { host: 'fifty.hangar.localhost' })),
    )
    world.host.listenLateMs = 0
    assert.deepEqual(new Set(all.map((got) => got.status)), new Set([200]))
    assert.equal(machine.wakes, 1)
    assert.equal(machine.requests, 50)
    assert.equal(await retriesOf(world, 'm-fifty'), 0, 'a refusal costs a request a second')
  })

  test('one that may not be started says why; a start that fails says what the host said', async () => {
    await world.host.add('m-never', {
      app: 'never',
      state: 'stopped',
      services: [webService(world.host.appPort, { autostart: false })],
    })
    await world.host.add('m-fails', { app: 'fails', state: 'stopped' })
    await settled(world)
    const never = await get(world.settings, { host: 'never.hangar.localhost' })
    assert.equal(never.status, 503)
    assert.match(never.text, /m-never \(stopped, auto_start_machines is false\).*hangar m start/)
    world.host.failWakes = 'the image is gone'
    const fails = await get(world.settings, { host: 'fails.hangar.localhost' })
    world.host.failWakes = undefined
    assert.equal(fails.status, 503)
    assert.match(fails.text, /m-fails of fails could not be started: the image is gone/)
  })

  test('a started machine that listens nowhere: the hold ends with what to change', async () => {
    const machine = await world.host.add('m-deaf', {
      app: 'deaf',
      services: [off(world.host.appPort)],
    })
    await settled(world)
    const host = 'deaf.hangar.localhost'
    await eventually('a server', async () => (await get(world.settings, { host })).status === 200)
    await world.host.unlisten('m-deaf')
    const start = systemClock.now()
    const got = await get(world.settings, { host })
    assert.equal(got.status, 503)
    assert.match(got.text, new RegExp(`must listen on 0.0.0.0:${world.host.appPort}`))
    assert.ok(systemClock.now() - start > 2_900)
    // It comes back as soon as it listens again, held requests and all.
    const held = get(world.settings, { host })
    await systemClock.sleep(100)
    await world.host.listen('m-deaf')
    assert.equal((await held).status, 200)
    assert.equal(machine.wakes, 0)
  })

  test('a machine that is being updated is waited for, and traffic goes on with it', async () => {
    const services = [off(world.host.appPort)]
    const machine = await world.host.add('m-update', { app: 'update', services })
    await settled(world)
    const host = 'update.hangar.localhost'
    await eventually('a server', async () => (await get(world.settings, { host })).status === 200)
    const agent = new http.Agent({ keepAlive: true, maxSockets: 4 })
    const statuses: number[] = []
    const stop = new AbortController()
    const load = Array.from({ length: 4 }, async (_, worker) => {
      while (!stop.signal.aborted) {
        const post = worker % 2 === 1
        const got = await get(world.settings, {
          host,
          agent,
          ...(post ? { method: 'POST', body: 'x' } : {}),
        })
        statuses.push(got.status)
      }
    })
    for (let round = 0; round < 3; round++) {
      await world.host.put('m-update', { state: 'updating', ready: false, returning: true })
      await settled(world)
      await eventually('drained', () => world.edges.sessions('m-update') === 0)
      await world.host.unlisten('m-update')
      await systemClock.sleep(100)
      await world.host.listen('m-update')
      await world.host.put('m-update', { state: 'started', ready: true, returning: false })
      await settled(world)
      await systemClock.sleep(100)
    }
    stop.abort()
    await Promise.all(load)
    agent.destroy()
    assert.deepEqual(new Set(statuses), new Set([200]))
    assert.ok(statuses.length > 12, `${statuses.length} requests`)
    assert.equal(machine.wakes, 0)
  })

  test('all at the soft limit: the next machine is started, and shares the load', async () => {
    const services = [
      webService(world.host.appPort, { autostop: 'off', concurrency: { soft_limit: 2 } }),
    ]
    const first = await world.host.add('m-one', { app: 'grow', services })
    const second = await world.host.add('m-two', { app: 'grow', services, state: 'stopped' })
    await settled(world)
    const host = 'grow.hangar.localhost'
    await eventually('a server', async () => (await get(world.settings, { host })).status === 200)
    const slow = Array.from({ length: 4 }, () => get(world.settings, { host, path: '/?held' }))
    await eventually('the second is started', () => second.row.state === 'started')
    await settled(world)
    const next = await get(world.settings, { host })
    assert.match(next.text, /"machine":"m-two"/, 'the full machine is passed over')
    release(first)
    for (const got of await Promise.all(slow)) assert.equal(got.status, 200)
  })

  test('PRX-41: of an app of two none is stopped within a pass of a start', async () => {
    const startedAt = Date.now()
    const first = await world.host.add('m-pair1', { app: 'pair' })
    const second = await world.host.add('m-pair2', { app: 'pair' })
    const stopped = () => first.stops.length + second.stops.length > 0
    await eventually('one of them rests', stopped)
    assert.ok(Date.now() - startedAt >= 700, 'it was up for less than the interval')
  })

  test('an idle machine is suspended, or stopped when it cannot be; a busy one is left alone', async () => {
    world.host.refuseSuspend = true
    const suspend = [webService(world.host.appPort, { autostop: 'suspend' })]
    const idle = await world.host.add('m-idle', { app: 'idle', services: suspend })
    const busy = await world.host.add('m-busy', { app: 'busy' })
    await settled(world)
    const stop = new AbortController()
    const trickle = (async () => {
      while (!stop.signal.aborted) {
        await get(world.settings, { host: 'busy.hangar.localhost' })
        await systemClock.sleep(60)
      }
    })()
    await eventually('the idle one rests', () => idle.stops.length > 0)
    await systemClock.sleep(1_500)
    assert.deepEqual(idle.stops, ['stop'])
    assert.deepEqual(busy.stops, [])
    stop.abort()
    await trickle
    await eventually('the busy one, too, once it is idle', () => busy.stops.length > 0)
    await eventually('it is at rest', () => busy.row.state === 'stopped')
    assert.equal((await get(world.settings, { host: 'busy.hangar.localhost' })).status, 200)
    assert.equal(busy.wakes, 1)
  })

  test('a machine that a command runs in is left alone, and the one beside it rests', async () => {
    const services = [webService(world.host.appPort, { autostop: 'suspend' })]
    const used = await world.host.add('m-a-used', { app: 'used', services })
    world.host.inUse.add('m-a-used')
    const beside = await world.host.add('m-b-beside', { app: 'used', services })
    await settled(world)
    await eventually('the one beside it rests', () => beside.stops.length > 0)
    await systemClock.sleep(1_500)
    assert.deepEqual(used.stops, [])
    world.host.inUse.clear()
    await eventually('it rests once the command has ended', () => used.stops.length > 0)
  })
})

/** How many requests to a machine HAProxy had to try anew, there or elsewhere. */
async function retriesOf(world: World, machine: string): Promise<number> {
  const socket = connect(`${world.settings.dir}/admin.sock`)
  socket.write('show stat\n')
  const [head = '', ...lines] = (await text(socket)).split('\n').map((line) => line.split(','))
  const at = (name: string) => head.indexOf(name)
  const servers = lines.filter((line) => line[at('svname')]?.startsWith(`${machine}.`))
  assert.ok(servers.length > 0)
  return servers.reduce(
    (sum, line) => sum + Number(line[at('wretr')]) + Number(line[at('wredis')]),
    0,
  )
}

function openSocket(world: World, app: string): WebSocket {
  return new WebSocket(`ws://127.0.0.1:${world.settings.http_port}/`, {
    headers: { host: `${app}.hangar.localhost` },
  })
}

function ask(socket: WebSocket, question: string): Promise<string> {
  return new Promise((resolve, reject) => {
    socket.once('error', reject)
    socket.once('message', (message) => resolve((message as Buffer).toString()))
    if (socket.readyState === WebSocket.OPEN) socket.send(question)
    else socket.once('open', () => socket.send(question))
  })
}
