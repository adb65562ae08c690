import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import http from 'node:http'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { systemClock } from '#core/clock.ts'
import { isAlive, signalProcess } from '#sys/process.ts'
import { eventually } from '#sys/test-support.ts'
import { load } from './support/load.ts'
import { walkInShell } from './support/terminal.ts'
import { startTestCloud, type TestCloud } from './support/test-cloud.ts'

/** One straight walk through the whole system on one cloud: source, image, machine, edge; sleep and wake; kills. */

let cloud: TestCloud
let web: string

interface ListedMachine {
  id: string
  state: string
  instance_id: string
}

const machines = async (app: string): Promise<ListedMachine[]> =>
  JSON.parse(await cloud.ok(['m', 'list', '-a', app, '--json'])) as ListedMachine[]
const inState = async (app: string, state: string) =>
  (await machines(app)).filter((m) => m.state === state)

const slow = { timeout: 300_000 }

before(async () => {
  cloud = await startTestCloud({
    name: 'journey',
    images: ['busybox', 'node', 'python'],
    autostopIntervalMs: 1_500,
  })
  web = cloud.appFolder('node')
}, slow)
after(async () => {
  await cloud?.destroy()
}, slow)

test(
  'an app FROM scratch with a static busybox is launched from its Dockerfile',
  slow,
  async () => {
    const folder = join(cloud.home, 'apps', 'tiny')
    mkdirSync(folder, { recursive: true })
    copyFileSync('/bin/busybox', join(folder, 'busybox'))
    writeFileSync(join(folder, 'index.html'), 'from scratch\n')
    writeFileSync(
      join(folder, 'Dockerfile'),
      'FROM scratch\nCOPY busybox /busybox\nCOPY index.html /www/index.html\nEXPOSE 8080\nENTRYPOINT ["/busybox"]\nCMD ["httpd","-f","-p","8080","-h","/www"]\n',
    )
    const out = await cloud.ok(['launch', '--name', 'tiny', '--now', '--yes', '--ha=false'], {
      cwd: folder,
    })
    assert.match(out, /tiny\.hangar\.localhost/)
    assert.match(readFileSync(join(folder, 'fly.toml'), 'utf8'), /internal_port = 8080/)
    // launch writes flyctl's default force_https: plain HTTP is sent on to HTTPS.
    const answer = await cloud.get('tiny')
    assert.equal(answer.status, 301)
    assert.match(answer.headers.location ?? '', /^https:\/\/tiny\.hangar\.localhost/)
  },
)

test('a shell in a container, which stays awake for as long', slow, async () => {
  const [tiny] = await machines('tiny')
  assert.ok(tiny)
  await walkInShell(cloud, { app: 'tiny', machine: tiny.id, busybox: '/busybox' })
})

test('a Python server is launched', slow, async () => {
  const folder = cloud.appFolder('python')
  writeFileSync(
    join(folder, 'fly.toml'),
    'app = "snake"\n[http_service]\ninternal_port = 8000\nauto_stop_machines = "off"\n',
  )
  await cloud.ok(['launch', '--copy-config', '--name', 'snake', '--now', '--yes', '--ha=false'], {
    cwd: folder,
  })
  const answer = await cloud.get('snake')
  assert.equal(answer.status, 200)
  assert.match(answer.body, /^python on [0-9a-f]{14}$/m)
})

test(
  'a Node server is launched on two machines and answers with the proxy headers',
  slow,
  async () => {
    writeFileSync(
      join(web, 'fly.toml'),
      [
        'app = "web"',
        'kill_timeout = 10',
        '[build.args]',
        'VERSION = "one"',
        '[env]',
        'PORT = "3000"',
        '[http_service]',
        'internal_port = 3000',
        'auto_stop_machines = "off"',
        // Fifty at once are no reason for a second machine.
        '[http_service.concurrency]',
        'soft_limit = 100',
        '[[http_service.checks]]',
        'path = "/"',
        'interval = "1s"',
        'timeout = "2s"',
        'grace_period = "5s"',
      ].join('\n'),
    )
    await cloud.ok(['launch', '--copy-config', '--name', 'web', '--now', '--yes'], { cwd: web })
    assert.equal((await inState('web', 'started')).length, 2)
    const answer = await cloud.get('web')
    assert.equal(answer.status, 200)
    const seen = JSON.parse(answer.body) as { version: string; headers: Record<string, string> }
    assert.equal(seen.version, 'one')
    assert.ok(seen.headers['fly-request-id']?.endsWith('-ord'))
    assert.equal(seen.headers['fly-client-ip'], '127.0.0.1')
    assert.equal(seen.headers['x-forwarded-proto'], 'http')
  },
)

test(
  'two deploys under load lose no request, keep the machines and change the version',
  slow,
  async (t) => {
    const before = await machines('web')
    const stop = new AbortController()
    t.after(() => stop.abort())
    const running = load({
      port: cloud.ports.http,
      host: 'web.hangar.localhost',
      connections: 8,
      until: stop.signal,
    })
    await systemClock.sleep(1_000)
    for (const version of ['two', 'three']) {
      await cloud.ok(['deploy', '--build-arg', `VERSION=${version}`], { cwd: web })
    }
    await systemClock.sleep(1_000)
    stop.abort()
    const result = await running
    assert.deepEqual(result.bad, {})
    assert.ok(result.ok > 100, `only ${result.ok} requests`)
    assert.deepEqual([...result.versions].toSorted(), ['one', 'three', 'two'])
    const now = await machines('web')
    assert.deepEqual(now.map((m) => m.id).toSorted(), before.map((m) => m.id).toSorted())
    assert.ok(now.every((m) => !before.some((b) => b.instance_id === m.instance_id)))
  },
)

test('a deploy with nothing changed restarts nothing', slow, async () => {
  const before = await machines('web')
  await cloud.ok(['deploy', '--build-arg', 'VERSION=three'], { cwd: web })
  assert.deepEqual(
    (await machines('web')).map((m) => m.instance_id).toSorted(),
    before.map((m) => m.instance_id).toSorted(),
  )
})

test('scaled to three and back', slow, async () => {
  await cloud.ok(['scale', 'count', '3', '-a', 'web', '--yes'])
  assert.equal((await machines('web')).length, 3)
  await eventually('three machines answer', async () => {
    const answers = await Promise.all(Array.from({ length: 12 }, () => cloud.get('web')))
    return (
      new Set(answers.map((a) => (JSON.parse(a.body) as { machine: string }).machine)).size === 3
    )
  })
  await cloud.ok(['scale', 'count', '2', '-a', 'web', '--yes'])
  assert.equal((await machines('web')).length, 2)
})

test('a changed secret is seen, and listed without its value', slow, async () => {
  await cloud.ok(['secrets', 'set', 'GREETING=good morning', '-a', 'web'])
  const answer = await cloud.get('web')
  assert.equal((JSON.parse(answer.body) as { greeting: string }).greeting, 'good morning')
  const list = await cloud.ok(['secrets', 'list', '-a', 'web', '--json'])
  assert.match(list, /GREETING/)
  assert.doesNotMatch(list, /good morning/)
})

test('logs show what the machines printed', slow, async () => {
  const lines = await cloud.ok(['logs', '-a', 'web', '--no-tail'])
  assert.match(lines, /app\[[0-9a-f]{14}\] ord \[info\]\s*listening three/)
  assert.match(lines, /Main child exited normally with code: 0/)
})

test(
  'host, edge, control and supervisor are killed with -9 while it serves: nothing is lost',
  slow,
  async (t) => {
    const before = await inState('web', 'started')
    const stop = new AbortController()
    t.after(() => stop.abort())
    const running = load({
      port: cloud.ports.http,
      host: 'web.hangar.localhost',
      connections: 4,
      until: stop.signal,
    })
    for (const role of ['host', 'edge', 'control']) {
      const victims = cloud.daemons(role)
      assert.ok(victims.length > 0, `no record of ${role}`)
      for (const victim of victims) signalProcess(victim, 'SIGKILL')
      await eventually(`${role} is back`, async () => {
        const now = cloud.daemons(role)
        return (
          now.length === victims.length && now.every((r) => victims.every((v) => v.pid !== r.pid))
        )
      })
      await eventually(
        'the API answers',
        async () => (await cloud.hangar(['status', '-a', 'web'])).code === 0,
      )
    }
    const supervisors = cloud.daemons('cloud')
    const others = cloud.daemons('').filter((r) => supervisors.every((s) => s.pid !== r.pid))
    for (const supervisor of supervisors) signalProcess(supervisor, 'SIGKILL')
    await cloud.ok(['up'])
    assert.deepEqual(
      others.filter((r) => !isAlive(r)).map((r) => r.name),
      [],
      'the new supervisor adopts what runs',
    )
    stop.abort()
    assert.deepEqual((await running).bad, {})
    assert.deepEqual(
      (await inState('web', 'started')).map((m) => m.instance_id).toSorted(),
      before.map((m) => m.instance_id).toSorted(),
    )
  },
)

/** A WebSocket handshake; resolves with the first text frame. */
function webSocket(port: number, host: string): Promise<string> {
  return new Promise((done, fail) => {
    const key = randomBytes(16).toString('base64')
    const outgoing = http.request({
      host: '127.0.0.1',
      port,
      path: '/ws',
      agent: false,
      headers: {
        host,
        connection: 'Upgrade',
        upgrade: 'websocket',
        'sec-websocket-version': '13',
        'sec-websocket-key': key,
      },
    })
    outgoing.on('error', fail)
    outgoing.on('response', (answer) => fail(new Error(`no upgrade but ${answer.statusCode}`)))
    outgoing.on('upgrade', (_answer, socket, head) => {
      const chunks: Buffer[] = [head]
      const look = () => {
        const frame = Buffer.concat(chunks)
        const length = frame[1] ?? 0
        if (frame.length < 2 + length) return
        socket.destroy()
        done(frame.subarray(2, 2 + length).toString())
      }
      socket.on('data', (chunk: Buffer) => {
        chunks.push(chunk)
        look()
      })
      look()
    })
    outgoing.end()
  })
}

test(
  'idle machines are stopped; fifty requests at once all get 200 and wake one',
  slow,
  async () => {
    const text = readFileSync(join(web, 'fly.toml'), 'utf8').replace(
      /auto_stop_machines = .off./,
      'auto_stop_machines = "stop"',
    )
    writeFileSync(join(web, 'fly.toml'), text)
    await cloud.ok(['deploy', '--build-arg', 'VERSION=three'], { cwd: web })
    await eventually('asleep', async () => (await inState('web', 'stopped')).length === 2, 60_000)
    const answers = await Promise.all(Array.from({ length: 50 }, () => cloud.get('web')))
    assert.deepEqual([...new Set(answers.map((a) => a.status))], [200])
    assert.equal(
      new Set(answers.map((a) => (JSON.parse(a.body) as { machine: string }).machine)).size,
      1,
    )
  },
)

test('a sleeping app is woken by a POST and by a WebSocket', slow, async () => {
  await eventually('asleep', async () => (await inState('web', 'stopped')).length === 2, 60_000)
  const posted = await cloud.get('web', '/', { method: 'POST', body: 'x'.repeat(300_000) })
  assert.equal(posted.status, 200)
  assert.equal((JSON.parse(posted.body) as { received: number }).received, 300_000)
  await eventually(
    'asleep again',
    async () => (await inState('web', 'stopped')).length === 2,
    60_000,
  )
  assert.match(
    await webSocket(cloud.ports.http, 'web.hangar.localhost'),
    /^hello from [0-9a-f]{14}$/,
  )
})

test('a cold request waits while the edge process is dead', slow, async () => {
  await eventually('asleep', async () => (await inState('web', 'stopped')).length === 2, 60_000)
  for (const victim of cloud.daemons('edge')) signalProcess(victim, 'SIGKILL')
  assert.equal((await cloud.get('web')).status, 200)
})

test('with control and its database dead, apps serve, sleep and wake', slow, async () => {
  for (const supervisor of cloud.daemons('cloud')) signalProcess(supervisor, 'SIGKILL')
  for (const victim of [...cloud.daemons('control'), ...cloud.daemons('postgres')])
    signalProcess(victim, 'SIGKILL')
  assert.equal((await cloud.get('web')).status, 200)
  assert.equal((await cloud.get('snake')).status, 200)
  await cloud.ok(['up'])
  await eventually('asleep', async () => (await inState('web', 'stopped')).length === 2, 60_000)
  assert.equal((await cloud.get('web')).status, 200)
})

test('down stops everything and keeps it; up brings it back', slow, async () => {
  await cloud.ok(['down'])
  assert.equal(cloud.daemons('').length, 0)
  await cloud.ok(['up'])
  assert.equal((await cloud.get('snake')).status, 200)
  assert.equal((await cloud.get('web')).status, 200)
})
