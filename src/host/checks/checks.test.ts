import assert from 'node:assert/strict'
import http from 'node:http'
import type { AddressInfo } from 'node:net'
import { test, type TestContext } from 'node:test'
import { systemClock } from '#core/clock.ts'
import { machineConfigSchema } from '#spec/machine-config.ts'
import { freePort } from '#sys/test-support.ts'
import { Health, listenPort, planChecks } from './index.ts'
import { probe } from './probe.ts'

const config = (value: object) => machineConfigSchema.parse({ image: 'x', ...value })

async function serve(t: TestContext, handler: http.RequestListener, port = 0): Promise<number> {
  const server = http.createServer(handler)
  t.after(() => server.close())
  await new Promise<void>((resolve) => server.listen(port, '127.0.0.1', resolve))
  return (server.address() as AddressInfo).port
}

function watch(t: TestContext, value: object, wasReady = false) {
  let changed = () => {}
  const warnings: string[] = []
  const health = new Health({
    config: config(value),
    address: '127.0.0.1',
    clock: systemClock,
    wasReady,
    onChange: () => changed(),
    warn: (message) => warnings.push(message),
  })
  t.after(() => health.stop())
  const until = (predicate: () => boolean, ms = 60_000) =>
    new Promise<void>((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error('it did not happen in time')), ms)
      changed = () => {
        if (!predicate()) return
        clearTimeout(timer)
        resolve()
      }
      changed()
    })
  return { health, until, warnings }
}

test('names, defaults and bounds', () => {
  const planned = planChecks(
    config({
      services: [
        {
          protocol: 'tcp',
          internal_port: 8080,
          checks: [
            { type: 'http', interval: '100ms', timeout: '5m', grace_period: '0s', method: 'head' },
            { type: 'tcp', port: 9000 },
          ],
        },
      ],
      checks: {
        alive: { type: 'http', port: 1234, path: '/up', kind: 'readiness' },
        shown: { type: 'tcp', port: 1 },
      },
    }),
  )
  assert.deepEqual(
    planned.map((check) => [check.name, check.gating]),
    [
      ['servicecheck-00-http-8080', true],
      ['servicecheck-01-tcp-9000', true],
      ['alive', true],
      ['shown', false],
    ],
  )
  const [first, second] = planned
  assert.deepEqual(
    [first?.intervalMs, first?.timeoutMs, first?.graceMs, first?.method],
    [1000, 60_000, 0, 'HEAD'],
  )
  assert.deepEqual(
    [second?.intervalMs, second?.timeoutMs, second?.graceMs, second?.path],
    [15_000, 2000, 1000, '/'],
  )
})

test('the port is probed only where no gating check speaks for it', () => {
  const services = [{ protocol: 'tcp', internal_port: 80 }]
  assert.equal(listenPort(config({})), undefined)
  assert.equal(listenPort(config({ services })), 80)
  assert.equal(listenPort(config({ services, checks: { a: { port: 1 } } })), 80)
  assert.equal(
    listenPort(config({ services, checks: { a: { port: 1, kind: 'readiness' } } })),
    undefined,
  )
  assert.equal(
    listenPort(config({ services: [{ protocol: 'udp', internal_port: 53 }] })),
    undefined,
  )
})

test('http passes on 2xx only, sends what it is told, and says what came back', async (t) => {
  const port = await serve(t, (request, response) => {
    if (request.url === '/moved') response.writeHead(302, { location: '/' }).end()
    else if (request.url === '/slow') return
    else if (request.headers['x-forwarded-proto'] === 'https') response.writeHead(204).end()
    else response.writeHead(500).end('no proto')
  })
  const run = async (check: object) => {
    const [planned] = planChecks(config({ checks: { a: { type: 'http', port, ...check } } }))
    assert.ok(planned)
    return probe('127.0.0.1', planned)
  }
  const headers = [{ name: 'X-Forwarded-Proto', values: ['https'] }]
  assert.deepEqual(await run({ headers }), { ok: true, output: 'status 204' })
  assert.deepEqual(await run({}), { ok: false, output: 'status 500: no proto' })
  assert.deepEqual(await run({ path: '/moved' }), { ok: false, output: 'status 302' })
  assert.match((await run({ path: '/slow', timeout: '1s' })).output, /no answer in 1000 ms/)
  assert.match((await run({ port: await freePort() })).output, /refused/)
})

test('a machine is ready soon after its port opened, long before the next check and the end of its grace', async (t) => {
  const port = await freePort()
  const { health, until } = watch(t, {
    services: [
      { protocol: 'tcp', internal_port: port, checks: [{ type: 'tcp', grace_period: '30s' }] },
    ],
  })
  assert.equal(health.ready, false)
  await until(() => health.statuses[0]?.status === 'warning')
  await systemClock.sleep(200)
  await serve(t, (_, response) => response.end(), port)
  const opened = performance.now()
  await until(() => health.ready)
  assert.ok(performance.now() - opened < 7_500, 'long before the next check, which is due in 15 s')
})

test('a machine without checks is ready once its port accepts', async (t) => {
  const port = await freePort()
  const { health, until } = watch(t, { services: [{ protocol: 'tcp', internal_port: port }] })
  assert.deepEqual(health.statuses, [])
  assert.equal(health.ready, false)
  await serve(t, (_, response) => response.end(), port)
  await until(() => health.ready)
})

test('failing makes it critical and not ready, passing again heals it; an adopted one starts as it was', async (t) => {
  let healthy = false
  const port = await serve(t, (_, response) => response.writeHead(healthy ? 200 : 503).end('words'))
  const check = { type: 'http', port, interval: '1s', grace_period: '0s', kind: 'readiness' }
  const { health, until } = watch(t, { checks: { web: check } }, true)
  assert.equal(health.ready, true)
  await until(() => health.statuses[0]?.status === 'critical')
  assert.equal(health.ready, false)
  assert.equal(health.statuses[0]?.output, 'status 503: words')
  const since = health.statuses[0]?.updated_at
  healthy = true
  await until(() => health.ready)
  assert.notEqual(health.statuses[0]?.updated_at, since)
})
