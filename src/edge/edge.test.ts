import assert from 'node:assert/strict'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import http from 'node:http'
import http2 from 'node:http2'
import https from 'node:https'
import tls from 'node:tls'
import { after, before, describe, test } from 'node:test'
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
  type Got,
  type World,
} from './test-support.ts'

interface Echo {
  machine: string
  headers: Record<string, string | undefined>
  url: string
}
const echo = (got: Got) => JSON.parse(got.text) as Echo

describe('the edge, warm', () => {
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

  test('carries a request to the app that the host names, whatever its case and port', async () => {
    await world.host.add('m1', { app: 'routed' })
    await settled(world)
    const got = await get(world.settings, { host: 'Routed.HANGAR.localhost:1234', path: '/a?b=c' })
    assert.equal(echo(got).machine, 'm1')
    assert.equal(echo(got).url, '/a?b=c')
    assert.equal(world.host.machines.get('m1')?.wakes, 0)
  })

  test('an unknown name is told so, and what to do, in the form asked for', async () => {
    const json = await get(world.settings, { host: 'nosuch.hangar.localhost:80' })
    assert.equal(json.status, 404)
    const { error } = JSON.parse(json.text) as { error: string }
    assert.match(error, /no app named "nosuch" .* hangar deploy/)
    const html = await get(world.settings, {
      host: 'no<b>such.hangar.localhost',
      headers: { accept: 'text/html' },
    })
    assert.match(html.text, /<code>nobsuch<\/code>/)
  })

  test('adds the headers of the platform, and takes none of them from the client', async () => {
    await world.host.add('m-headers', { app: 'headers' })
    await settled(world)
    const got = await get(world.settings, {
      host: 'headers.hangar.localhost',
      headers: {
        'fly-client-ip': '6.6.6.6',
        'fly-region': 'xxx',
        'fly-replay-src': 'instance=1',
        'x-forwarded-for': '9.9.9.9',
        via: '1.0 before',
      },
    })
    assert.equal(got.status, 200)
    const { headers } = echo(got)
    const port = String(world.settings.http_port)
    assert.equal(headers['fly-client-ip'], '127.0.0.1')
    assert.equal(headers['fly-forwarded-port'], port)
    assert.equal(headers['fly-region'], 'ord')
    assert.match(headers['fly-request-id'] ?? '', /^0[0-9A-Z]{25}-ord$/)
    assert.equal(headers['x-forwarded-for'], '9.9.9.9, 127.0.0.1, 127.0.0.1')
    assert.equal(headers['x-forwarded-proto'], 'http')
    assert.equal(headers['x-forwarded-port'], port)
    assert.equal(headers['x-forwarded-ssl'], 'off')
    assert.equal(headers['via'], '1.0 before, 1.1 fly.io')
    assert.equal(headers['fly-replay-src'], undefined)
    assert.deepEqual(
      Object.keys(headers).filter((name) => name.startsWith('x-hangar')),
      [],
    )
    assert.equal(got.headers['fly-request-id'], headers['fly-request-id'])
    assert.match(String(got.headers.server), /^Fly\//)
    assert.equal(got.headers.via, '1.1 fly.io')
    const other = await get(world.settings, { host: 'headers.hangar.localhost' })
    assert.notEqual(other.headers['fly-request-id'], got.headers['fly-request-id'])
  })

  test('serves HTTPS by the local authority: the wildcard, a leaf by SNI, a default without', async () => {
    await world.host.add('m-tls', { app: 'secure' })
    await settled(world)
    const ca = readFileSync(world.caCertFile)
    const names = async (servername: string | undefined): Promise<[string, string]> => {
      const socket = tls.connect({
        host: '127.0.0.1',
        port: world.settings.https_port,
        ca,
        ...(servername === undefined ? {} : { servername }),
        checkServerIdentity: () => undefined,
      })
      await once(socket, 'secureConnect')
      const certificate = socket.getPeerX509Certificate()
      socket.destroy()
      return [certificate?.subjectAltName ?? '', certificate?.publicKey.asymmetricKeyType ?? '']
    }
    assert.deepEqual(await names('secure.hangar.localhost'), [
      'DNS:*.hangar.localhost, DNS:hangar.localhost',
      'ec',
    ])
    assert.deepEqual(await names('www.example.test'), ['DNS:www.example.test', 'ec'])
    assert.match((await names(undefined))[0], /hangar\.localhost/)
    const got = await new Promise<Got>((resolve, reject) => {
      const options = {
        host: '127.0.0.1',
        port: world.settings.https_port,
        ca,
        servername: 'secure.hangar.localhost',
        headers: { host: 'secure.hangar.localhost' },
        agent: false as const,
      }
      https
        .get(options, (answer) => {
          let text = ''
          answer.on('data', (chunk: Buffer) => (text += chunk.toString()))
          answer.on('end', () =>
            resolve({ status: answer.statusCode ?? 0, headers: answer.headers, text }),
          )
        })
        .on('error', reject)
    })
    assert.equal(echo(got).headers['x-forwarded-proto'], 'https')
    assert.equal(echo(got).headers['x-forwarded-ssl'], 'on')
    const old = tls.connect({
      host: '127.0.0.1',
      port: world.settings.https_port,
      ca,
      maxVersion: 'TLSv1.1',
      minVersion: 'TLSv1.1',
      ciphers: 'ALL@SECLEVEL=0',
    })
    await assert.rejects(once(old, 'secureConnect'))
  })

  test('speaks HTTP/2 to clients and HTTP/1.1 to machines', async () => {
    const session = http2.connect(`https://secure.hangar.localhost:${world.settings.https_port}`, {
      ca: readFileSync(world.caCertFile),
      lookup: (_name, _options, done) => done(null, [{ address: '127.0.0.1', family: 4 }]),
    } as http2.SecureClientSessionOptions)
    const stream = session.request({ ':path': '/h2' })
    let text = ''
    stream.on('data', (chunk: Buffer) => (text += chunk.toString()))
    const [headers] = (await once(stream, 'response')) as [http2.IncomingHttpHeaders]
    await once(stream, 'end')
    session.close()
    assert.equal(headers[':status'], 200)
    assert.equal(headers['via'], '2 fly.io')
    assert.equal((JSON.parse(text) as Echo).headers['via'], '2 fly.io')
  })

  test('force_https answers 301 with the port of HTTPS and wakes nothing', async () => {
    const services = [
      webService(world.host.appPort, {
        ports: [
          { port: 80, handlers: ['http'], force_https: true },
          { port: 443, handlers: ['http', 'tls'] },
        ],
      }),
    ]
    await world.host.add('m-force', { app: 'forced', services, state: 'stopped' })
    await settled(world)
    const got = await get(world.settings, { host: 'forced.hangar.localhost:99', path: '/x?y=1' })
    assert.equal(got.status, 301)
    assert.equal(
      got.headers.location,
      `https://forced.hangar.localhost:${world.settings.https_port}/x?y=1`,
    )
    assert.equal(world.host.machines.get('m-force')?.wakes, 0)
    await world.host.put('m-force', { services: [webService(world.host.appPort)] })
    await settled(world)
    assert.equal((await get(world.settings, { host: 'forced.hangar.localhost' })).status, 200)
  })

  test("an app's own 503 and 425 reach the client, and a POST is sent once", async () => {
    const machine = await world.host.add('m-own', { app: 'own' })
    await settled(world)
    await eventually(
      'a server',
      async () => (await get(world.settings, { host: 'own.hangar.localhost' })).status === 200,
    )
    for (const [method, status] of [
      ['GET', 503],
      ['POST', 503],
      ['POST', 425],
    ] as const) {
      machine.requests = 0
      const got = await get(world.settings, {
        host: 'own.hangar.localhost',
        method,
        path: `/?status=${status}`,
        ...(method === 'POST' ? { body: 'x' } : {}),
      })
      assert.equal(got.status, status)
      assert.equal(machine.requests, 1)
    }
  })

  test('a request is not sent again once its client has left', async () => {
    const machine = await world.host.add('m-left', { app: 'left' })
    await settled(world)
    const host = 'left.hangar.localhost'
    await eventually('a server', async () => (await get(world.settings, { host })).status === 200)
    machine.requests = 0
    const { http_port: port } = world.settings
    const client = http.get({
      host: '127.0.0.1',
      port,
      path: '/?status=0&held',
      headers: { host },
    })
    client.on('error', () => {}) // It leaves.
    await eventually('the request at the machine', () => machine.requests === 1)
    client.destroy()
    await eventually('the machine sees that it is left', () => machine.left === 1)
    release(machine)
    await systemClock.sleep(800)
    assert.equal(machine.requests, 1)
  })

  test('keeps to the hard limit by queueing', async () => {
    const services = [
      webService(world.host.appPort, {
        autostart: false,
        concurrency: { type: 'requests', soft_limit: 1, hard_limit: 2 },
      }),
    ]
    await world.host.add('m-hard', { app: 'hard', services })
    await settled(world)
    await eventually(
      'a server',
      async () => (await get(world.settings, { host: 'hard.hangar.localhost' })).status === 200,
    )
    const start = systemClock.now()
    const all = await Promise.all(
      Array.from({ length: 6 }, () =>
        get(world.settings, { host: 'hard.hangar.localhost', path: '/?ms=150' }),
      ),
    )
    assert.deepEqual(new Set(all.map((got) => got.status)), new Set([200]))
    const ms = systemClock.now() - start
    assert.ok(ms >= 440, `6 requests, 2 at a time, 150 ms each took ${ms} ms`)
  })

  test('a machine that leaves is drained: acknowledged at once, its sessions counted down to 0', async () => {
    const machine = await world.host.add('m-drain', { app: 'drained' })
    await settled(world)
    const host = 'drained.hangar.localhost'
    await eventually('a server', async () => (await get(world.settings, { host })).status === 200)
    const slow = get(world.settings, { host, path: '/?held' })
    await eventually('the slow one in flight', () => machine.held.length > 0)
    await world.host.put('m-drain', { state: 'stopping', ready: false, startable: false })
    await settled(world)
    assert.equal(world.edges.sessions('m-drain'), 1)
    const refused = await get(world.settings, { host })
    assert.equal(refused.status, 503, 'nothing new goes to a machine that leaves')
    assert.match(refused.text, /m-drain \(stopping, never started by the proxy\)/)
    release(machine)
    assert.equal((await slow).status, 200)
    await eventually('no sessions left', () => world.edges.sessions('m-drain') === 0)
  })

  test('a cordoned machine and one whose checks fail get nothing; a removed app is unknown again', async () => {
    await world.host.add('m-a', { app: 'pair' })
    await world.host.add('m-b', { app: 'pair' })
    await settled(world)
    const host = 'pair.hangar.localhost'
    const reached = async () => {
      const machines = new Set<string>()
      for (let i = 0; i < 8; i++) machines.add(echo(await get(world.settings, { host })).machine)
      return [...machines].sort().join()
    }
    await eventually('both', async () => (await reached()) === 'm-a,m-b')
    await world.host.put('m-a', { cordoned: true })
    await settled(world)
    assert.equal(await reached(), 'm-b')
    await world.host.put('m-a', { cordoned: false })
    await world.host.put('m-b', { ready: false })
    await settled(world)
    await eventually('a alone', async () => (await reached()) === 'm-a')
    await world.host.put('m-a', { state: 'destroyed', ready: false })
    await world.host.put('m-b', { state: 'destroyed', ready: false })
    await settled(world)
    assert.equal((await get(world.settings, { host })).status, 404)
  })
})
