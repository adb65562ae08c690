import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { WebSocket } from 'ws'
import { runEdge, type Edge } from './index.ts'
import { eventually, get, makeWorld, settled, silentLog, type World } from './testing.ts'

describe('the edge', () => {
  let world: World
  let edge: Edge
  before(async () => {
    world = await makeWorld()
    edge = await runEdge(world.settings, silentLog)
  })
  after(async () => {
    await edge?.close()
    await world?.close()
  })

  test('carries a request to the machine of the app that the host names', async () => {
    await world.host.add('m1', { app: 'routed' })
    await eventually(
      'a 200',
      async () => (await get(world.settings, { host: 'Routed.hangar.localhost' })).status === 200,
    )
  })

  test('an unknown name is told so, and what to do', async () => {
    const json = await get(world.settings, { host: 'nosuch.hangar.localhost:80' })
    assert.equal(json.status, 404)
    assert.match(
      (JSON.parse(json.text) as { error: string }).error,
      /no app named "nosuch" .* hangar deploy/,
    )
    const html = await get(world.settings, {
      host: 'no<b>such.hangar.localhost',
      headers: { accept: 'text/html' },
    })
    assert.match(html.text, /<code>nobsuch<\/code>/)
  })

  test('a sleeping app: GET, POSTs of 10 kB and 1 MB and a WebSocket are held, then answered', async () => {
    for (const app of ['cold-get', 'cold-small', 'cold-large', 'cold-ws']) {
      await world.host.add(`m-${app}`, { app, state: 'stopped' })
    }
    await settled(world)
    const got = await get(world.settings, { host: 'cold-get.hangar.localhost' })
    assert.equal(got.status, 200)
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
    const answer = await new Promise((resolve, reject) => {
      const socket = new WebSocket(`ws://127.0.0.1:${world.settings.http_port}/`, {
        headers: { host: 'cold-ws.hangar.localhost' },
      })
      socket.on('error', reject)
      socket.on('open', () => socket.send('hello'))
      socket.on('message', (message) => {
        resolve((message as Buffer).toString())
        socket.close()
      })
    })
    assert.equal(answer, 'm-cold-ws: hello')
    for (const app of ['cold-get', 'cold-small', 'cold-large', 'cold-ws']) {
      assert.equal(world.host.machines.get(`m-${app}`)?.wakes, 1, app)
    }
  })
})
