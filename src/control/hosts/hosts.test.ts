import assert from 'node:assert/strict'
import { once } from 'node:events'
import net from 'node:net'
import { after, before, test } from 'node:test'
import { isFault } from '#core/fault.ts'
import { eventually } from '#sys/test-support.ts'
import { startTestControl, type TestControl } from '../test-support.ts'
import { callHost, freshHosts } from './host-client.ts'
import { openPulse } from './pulse.ts'
import { watchHosts } from './watch.ts'

let control: TestControl
before(async () => {
  control = await startTestControl(['h1', 'h2'])
})
after(() => control.close())

const unreachable = (error: unknown) => isFault(error, 'host_unreachable')

test('a call is cut once its host is lost for as long as it has patience', () => {
  let now = 1_000_000
  const pulse = openPulse({ now: () => now, sleep: async () => {} })
  const cut: string[] = []
  pulse.alive('a')
  pulse.onLost('a', 0, () => cut.push('read'))
  pulse.onLost('a', 5_000, () => cut.push('write'))
  pulse.onLost('a', 0, () => cut.push('answered'))()
  now += 60_000
  pulse.cutLost()
  assert.equal(pulse.lost('a'), false, 'silence alone does not make a host lost')
  pulse.missed('a')
  assert.equal(pulse.lost('a'), true)
  pulse.cutLost()
  assert.deepEqual(cut, ['read'])
  now += 4_000
  pulse.missed('a')
  now += 1_001
  pulse.cutLost()
  pulse.cutLost()
  assert.deepEqual(cut, ['read', 'write'])
  pulse.alive('a')
  assert.equal(pulse.lost('a'), false)
})

test('a host that hangs is waited for once, gets nothing new, and is called again when it answers', async () => {
  const stop = new AbortController()
  const ctx = { ...control.ctx, stopping: stop.signal }
  let hangs = true
  const path = `${control.dir}/hung.sock`
  const server = net.createServer((socket) => {
    socket.on('error', () => {})
    if (!hangs) socket.end('HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}')
  })
  server.listen(path)
  await once(server, 'listening')
  const row = ctx.hosts.list()[0]?.row
  assert.ok(row)
  ctx.hosts.note({ ...row, host: 'hung', number: 9, api: `unix:${path}` })
  const beating = setInterval(() => control.beat(), 500)
  const watch = watchHosts(ctx)
  const read = () =>
    callHost(
      ctx,
      { host_id: 'hung', host_api: `unix:${path}` },
      { method: 'GET', path: '/v1/machines' },
    )
  try {
    const first = performance.now()
    await assert.rejects(read, unreachable)
    assert.ok(performance.now() - first < 9_500, 'not its own time limit of 10 s')
    const second = performance.now()
    for (let i = 0; i < 20; i++) await assert.rejects(read, unreachable)
    assert.ok(performance.now() - second < 9_500, 'nobody waits for it again')
    const fresh = await freshHosts(ctx)
    assert.deepEqual(fresh.map((host) => host.host).toSorted(), ['h1', 'h2'])
    hangs = false
    await eventually('it is back', () => !ctx.hosts.pulse.lost('hung'))
    assert.deepEqual(await read(), {})
  } finally {
    clearInterval(beating)
    server.close()
    stop.abort()
    await watch
  }
})
