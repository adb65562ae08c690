import assert from 'node:assert/strict'
import http from 'node:http'
import { test } from 'node:test'
import type { AddressInfo } from 'node:net'
import { Fault, isFault } from '#core/fault.ts'
import type { LogLine } from '#spec/host-api.ts'
import type { Machine } from '#spec/machine.ts'
import { httpRequest, readBody } from '#sys/http-client.ts'
import { eventually } from '#sys/test-support.ts'
import { createTestMachine, openTestHost, testKey, type TestHost } from './testing.ts'
import { upkeep } from './upkeep.ts'

const types = (machine: Machine) => machine.events.map((event) => `${event.type}:${event.status}`)
const get = (host: TestHost, id: string) => host.call('GET', `/v1/machines/${id}`)
const wait = (host: TestHost, id: string, query: string) =>
  host.call('GET', `/v1/machines/${id}/wait?${query}`)

async function logs(host: TestHost, query = ''): Promise<LogLine[]> {
  const answer = await httpRequest(host.url, {
    method: 'GET',
    path: `/v1/apps/web/logs?${query}`,
    headers: { authorization: `Bearer ${testKey}` },
  })
  const text = (await readBody(answer.body, 1e6)).toString()
  return text
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line) as LogLine)
}

test('create, read, stop, start, destroy: states, events, log line, addresses', async (t) => {
  const host = await openTestHost(t)
  const config = { env: { A: '1' }, unknown_key: { kept: [1, null] }, metadata: { k: 'v' } }
  const machine = await createTestMachine(host, config)
  const { id } = machine
  assert.equal(machine.state, 'started')
  assert.equal(host.rows.get(id)?.ready, true, 'without services it is ready at once')
  assert.equal(machine.private_ip, 'fdaa:0:3:0:7:0:3:2')
  assert.deepEqual(machine.config, {
    image: 'busybox',
    ...config,
    guest: { cpus: 1, cpu_kind: 'shared', memory_mb: 256 },
  })
  assert.deepEqual(types(machine), ['start:started', 'launch:created'])
  const spec = host.driver.spec(id)
  assert.deepEqual(spec?.argv, ['/entry', 'serve'])
  assert.equal(spec?.env['A'], '1')
  assert.equal(spec?.env['LAYER'], 'image')
  assert.equal(spec?.env['FLY_MACHINE_VERSION'], machine.instance_id)
  assert.equal(spec?.hostname, id)
  assert.deepEqual(await host.call('POST', `/v1/machines/${id}/stop`, {}), { ok: true })
  await wait(host, id, 'state=stopped&timeout=60')
  const stopped = await get(host, id)
  assert.deepEqual(types(stopped).slice(0, 2), ['exit:stopped', 'stop:stopping'])
  const exit = stopped.events[0]?.request?.exit_event
  assert.deepEqual([exit?.exit_code, exit?.signal, exit?.requested_stop], [130, 2, true])
  assert.deepEqual([...host.attached], [id], 'a stopped machine keeps its addresses')
  const started = await host.call<{ previous_state: string }>('POST', `/v1/machines/${id}/start`)
  assert.equal(started.previous_state, 'stopped')
  await wait(host, id, 'state=started&timeout=60')
  await assert.rejects(host.call('DELETE', `/v1/machines/${id}`), (error) =>
    isFault(error, 'precondition_failed'),
  )
  await host.call('DELETE', `/v1/machines/${id}?kill=true`)
  await wait(host, id, 'state=destroyed&timeout=60')
  assert.equal((await get(host, id)).state, 'destroyed')
  assert.deepEqual([...host.attached], [])
  assert.deepEqual(await host.call('GET', '/v1/machines?app=web'), [])
  assert.equal(
    (await host.call<Machine[]>('GET', '/v1/machines?app=web&include_deleted=true')).length,
    1,
  )
  assert.equal(host.rows.get(id), undefined)
  const lines = (await logs(host)).map((line) => line.message)
  assert.ok(
    lines.includes("Main child exited with signal (with signal 'SIGINT', core dumped? false)"),
    lines.join('\n'),
  )
  assert.ok(
    lines.includes("Main child exited with signal (with signal 'SIGKILL', core dumped? false)"),
  )
})

test('stop honours signal and timeout, and kills what does not end', async (t) => {
  const host = await openTestHost(t)
  const { id } = await createTestMachine(host, {
    stop_config: { signal: 'SIGTERM', timeout: '150ms' },
  })
  const end = host.driver.onSignal
  host.driver.onSignal = (machine, signal) => {
    if (signal === 'SIGKILL') end(machine, signal)
  }
  const began = performance.now()
  await host.call('POST', `/v1/machines/${id}/stop`, {})
  await wait(host, id, 'state=stopped&timeout=60')
  const took = performance.now() - began
  assert.ok(took > 140 && took < 4_500, `${took} ms, and 5 s are what it has unasked`)
  const signals = host.driver.calls.filter((call) => call.startsWith('signal'))
  assert.deepEqual(signals, [`signal ${id} SIGTERM`, `signal ${id} SIGKILL`])
  await assert.rejects(
    host.call('POST', `/v1/machines/${id}/stop`, { signal: 'SIGFOO' }),
    (error) => isFault(error, 'invalid'),
  )
})

test('exit 0 rests under on-failure, a crash restarts at once, and a user stop is sticky', async (t) => {
  const host = await openTestHost(t)
  const { id } = await createTestMachine(host)
  host.driver.finish(id, { exitCode: 1 })
  await host.agent.changes.until(
    id,
    () => host.driver.calls.filter((c) => c.startsWith('start')).length === 2 || undefined,
    { timeoutMs: 60_000 },
  )
  await wait(host, id, 'state=started&timeout=60')
  const restarted = await get(host, id)
  assert.deepEqual(types(restarted).slice(0, 2), ['start:started', 'exit:stopped'])
  assert.equal(restarted.events[1]?.request?.exit_event?.restarting, true)
  assert.equal(restarted.events[1]?.request?.restart_count, 1)
  host.driver.finish(id, { exitCode: 0 })
  await wait(host, id, 'state=stopped&timeout=60')
  const lines = (await logs(host)).map((line) => line.message)
  assert.ok(lines.includes('Main child exited normally with code: 1'))
  assert.ok(lines.includes('Main child exited normally with code: 0'))
})

test('a stop or a fix deployed during the backoff of a crash loop does not wait for it', async (t) => {
  const host = await openTestHost(t)
  const { id } = await createTestMachine(host)
  // It has crashed so often that it has to wait long.
  const record = host.agent.store.machines.get(id)
  host.agent.store.machines.save({ ...record, restarts: Array(8).fill(Date.now()) })
  host.driver.finish(id, { exitCode: 1 })
  await wait(host, id, 'state=restarting&timeout=60')
  const exec = (machine: string) =>
    host.call('POST', `/v1/machines/${machine}/exec`, { command: ['true'] })
  await assert.rejects(exec(id), /while it is restarting; wait until it is started/)
  const { startAt } = host.agent.store.machines.get(id).life
  const input = { config: { image: 'fixed' } }
  await host.call('POST', `/v1/machines/${id}`, { input })
  await wait(host, id, 'state=started&timeout=60')
  assert.ok((startAt ?? 0) - Date.now() > 10_000, 'it would have waited on')
  assert.equal(host.driver.spec(id)?.env['FLY_IMAGE_REF']?.startsWith('local/fixed'), true)
  await host.call('POST', `/v1/machines/${id}/stop`)
  await wait(host, id, 'state=stopped&timeout=60')
  await assert.rejects(exec(id), /while it is stopped; start it first/)
})

test('update: new version, old one replaced, exit before launch, compare-and-set, no volume change', async (t) => {
  const host = await openTestHost(t)
  const first = await createTestMachine(host)
  const { id } = first
  const input = { config: { image: 'busybox', env: { B: '2' } }, current_version: 'other' }
  await assert.rejects(host.call('POST', `/v1/machines/${id}`, { input }), (error) =>
    isFault(error, 'precondition_failed'),
  )
  const waiting = wait(host, id, `state=stopped&instance_id=${first.instance_id}&timeout=60`)
  waiting.catch(() => {})
  const updated = await host.call('POST', `/v1/machines/${id}`, {
    input: { ...input, current_version: first.instance_id },
  })
  assert.equal(updated.state, 'updating')
  assert.notEqual(updated.instance_id, first.instance_id)
  await assert.rejects(waiting, /currently replaced/)
  await wait(host, id, `state=started&instance_id=${updated.instance_id}&timeout=60`)
  const now = await get(host, id)
  assert.deepEqual(types(now), [
    'start:started',
    'launch:created',
    'exit:stopped',
    'update:updating',
    'start:started',
    'launch:created',
  ])
  const versions = await host.call<{ version: string }[]>('GET', `/v1/machines/${id}/versions`)
  assert.deepEqual(
    versions.map((version) => version.version),
    [updated.instance_id, first.instance_id],
  )
  const mounts = [{ volume: 'vol_1', path: '/data' }]
  await assert.rejects(
    host.call('POST', `/v1/machines/${id}`, { input: { config: { image: 'x', mounts } } }),
    (error) => isFault(error, 'invalid'),
  )
  await assert.rejects(
    host.call('POST', `/v1/machines/${id}`, { input: { config: { image: 'missing' } } }),
    (error) => isFault(error, 'image_unavailable'),
  )
  assert.equal((await get(host, id)).state, 'started', 'a failed pull leaves the old version up')
})

test('skip_launch parks; an update with it leaves the machine stopped, one without starts it', async (t) => {
  const host = await openTestHost(t)
  const { id, state } = await createTestMachine(host, {}, { skip_launch: true })
  assert.ok(['created', 'stopped'].includes(state))
  assert.equal(host.rows.get(id)?.ip4, '127.0.0.1', 'edges route to it, so that they can wake it')
  await host.agent.queue.idle()
  const update = (skip_launch: boolean) =>
    host.call('POST', `/v1/machines/${id}`, { input: { config: { image: 'b' }, skip_launch } })
  await update(true)
  await wait(host, id, 'state=stopped&timeout=60')
  assert.deepEqual(
    host.driver.calls.filter((call) => call.startsWith('start')),
    [],
  )
  await update(false)
  await wait(host, id, 'state=started&timeout=60')
})

test('leases: holder, refresh, expiry, and no nonce in any read', async (t) => {
  const host = await openTestHost(t)
  const machine = await createTestMachine(host, {}, { lease_ttl: 60 })
  const { id, nonce } = machine
  assert.ok(nonce)
  type Envelope = { data: { nonce?: string; owner: string; version: string } }
  const lease = (method: string, query: string, headers = {}) =>
    host.call<Envelope>(method, `/v1/machines/${id}/lease${query}`, undefined, headers)
  const read = await lease('GET', '')
  assert.deepEqual([read.data.owner, read.data.version], ['tester', machine.instance_id])
  assert.equal(JSON.stringify([read, await get(host, id)]).includes(nonce), false)
  for (const [method, path] of [
    ['POST', '/stop'],
    ['POST', '/start'],
    ['POST', '/cordon'],
    ['POST', '/lease?ttl=5'],
    ['DELETE', '?kill=true'],
  ]) {
    await assert.rejects(
      host.call(method as string, `/v1/machines/${id}${path}`, { value: 'x' }),
      (error) =>
        isFault(error, 'lease_held') && /lease currently held by tester/.test(error.message),
      `${method} ${path}`,
    )
  }
  await host.call('POST', `/v1/machines/${id}/metadata/a`, { value: 'x' })
  const header = { 'fly-machine-lease-nonce': nonce }
  assert.equal((await lease('POST', '?ttl=30', header)).data.nonce, nonce)
  await host.call('POST', `/v1/machines/${id}/cordon`, {}, header)
  const { clock } = host.agent
  host.agent.clock = { ...clock, now: () => clock.now() + 31_000 }
  await assert.rejects(lease('GET', ''), / lease not found/)
  const owner = { 'x-hangar-owner': encodeURIComponent('jürgen@example.com') }
  const second = await lease('POST', '?ttl=60', owner)
  assert.equal(second.data.owner, 'jürgen@example.com')
  await assert.rejects(lease('DELETE', '', header), (error) => isFault(error, 'lease_held'))
  await lease('DELETE', '', { 'fly-machine-lease-nonce': second.data.nonce })
  await assert.rejects(lease('DELETE', ''), / lease not found/)
  await host.call('DELETE', `/v1/machines/${id}?kill=true`)
  await wait(host, id, 'state=destroyed&timeout=60')
  await assert.rejects(lease('POST', '?ttl=60'), /machine not found/)
})

test('waits: unknown state, time limit, and a state that can no longer come', async (t) => {
  const host = await openTestHost(t)
  const { id } = await createTestMachine(host)
  await assert.rejects(wait(host, id, 'state=happy'), (error) => isFault(error, 'bad_request'))
  await assert.rejects(wait(host, id, 'state=stopped&timeout=0.05'), (error) =>
    isFault(error, 'wait_timeout'),
  )
  await assert.rejects(wait(host, 'none', 'state=started'), (error) => isFault(error, 'not_found'))
  await host.call('POST', `/v1/machines/${id}/stop`, {})
  await wait(host, id, 'state=settled&state=stopped&timeout=60')
  host.driver.failNextStart(new Fault('invalid', 'no such command'))
  await host.call('POST', `/v1/machines/${id}/start`)
  await assert.rejects(
    wait(host, id, 'state=started&timeout=60'),
    /machine failed to reach desired state, started, currently failed: no such command/,
  )
  assert.match((await logs(host)).at(-1)?.message ?? '', /no such command/)
})

test('a start that fails for a reason of the system is tried again', async (t) => {
  const host = await openTestHost(t)
  const { id } = await createTestMachine(host, {}, { skip_launch: true })
  await host.agent.queue.idle()
  host.driver.failNextStart(new Fault('native_failed', 'out of loop devices'))
  await host.call('POST', `/v1/machines/${id}/start`)
  await wait(host, id, 'state=started&timeout=60')
  assert.equal(host.driver.calls.filter((call) => call === `start ${id}`).length, 2)
})

test('a machine that ends while nothing can be started comes back as soon as something can', async (t) => {
  const host = await openTestHost(t)
  const { id } = await createTestMachine(host)
  // Three tries are one launch.
  host.driver.failNextStart(new Fault('native_failed', 'crun is not installed'), 6)
  host.driver.finish(id, { exitCode: 1 })
  await wait(host, id, 'state=restarting&timeout=60')
  const waiting = () => host.agent.store.machines.get(id)
  await eventually('it failed', () => waiting().life.revival?.failures === 1)
  assert.match(waiting().lastError ?? '', /crun is not installed; it is tried again in 1 s/)
  const said = (await logs(host)).map(({ message }) => message)
  assert.ok(said.some((line) => /could not be started.*tried again in 1 s/.test(line)))
  await wait(host, id, 'state=started&timeout=60')
  assert.equal(waiting().lastError, null)
  const failed = (await get(host, id)).events.filter(({ status }) => status === 'failed')
  assert.equal(failed.length, 1)
})

test('a machine that is to come back and cannot be cleared up comes back once it can', async (t) => {
  const host = await openTestHost(t)
  const { id } = await createTestMachine(host)
  const { driver } = host
  const destroy = driver.destroy.bind(driver)
  // Five tries are one clearing up.
  let failures = 6
  driver.destroy = (...given) =>
    failures-- > 0 ? Promise.reject(new Error('its mount is busy')) : destroy(...given)
  driver.finish(id, { exitCode: 1 })
  const { machines } = host.agent.store
  await eventually('it failed', () => machines.get(id).lastError !== null)
  assert.equal(machines.get(id).life.state, 'restarting')
  assert.match(machines.get(id).lastError ?? '', /its mount is busy/)
  await wait(host, id, 'state=started&timeout=60')
  assert.equal(machines.get(id).life.revival, null)
  assert.ok(failures < 0)
})

test('what its own config is to blame for ends a machine that comes back, and so does its policy', async (t) => {
  const host = await openTestHost(t)
  const spoiled = await createTestMachine(host)
  host.driver.failNextStart(new Fault('invalid', 'no such command'))
  host.driver.finish(spoiled.id, { exitCode: 1 })
  await wait(host, spoiled.id, 'state=failed&timeout=60')
  const once = await createTestMachine(host, { restart: { policy: 'no' } })
  host.driver.finish(once.id, { exitCode: 1 })
  await wait(host, once.id, 'state=stopped&timeout=60')
})

test('an end that nobody told is found by the upkeep', async (t) => {
  const host = await openTestHost(t)
  const { id } = await createTestMachine(host, { restart: { policy: 'no' } })
  await host.driver.destroy(id)
  host.agent.runs.delete(id)
  await host.agent.queue.idle()
  assert.equal((await get(host, id)).state, 'started')
  await upkeep(host.agent)
  await wait(host, id, 'state=stopped&timeout=60')
})

test('auto_destroy: gone at its first exit, readable afterwards', async (t) => {
  const host = await openTestHost(t)
  const { id } = await createTestMachine(host, { auto_destroy: true, restart: { policy: 'no' } })
  host.driver.finish(id, { exitCode: 3 })
  await wait(host, id, 'state=destroyed&timeout=60')
  const machine = await get(host, id)
  const exit = machine.events.find((event) => event.type === 'exit')
  assert.equal(exit?.request?.exit_event?.exit_code, 3)
  assert.deepEqual(types(machine).slice(0, 2), ['destroy:destroyed', 'destroy:destroying'])
})

test('metadata, cordon and exec change no version and restart nothing', async (t) => {
  const host = await openTestHost(t)
  const { id, instance_id } = await createTestMachine(host)
  await host.call('POST', `/v1/machines/${id}/metadata/fly_process_group`, { value: 'worker' })
  assert.equal(host.rows.get(id)?.process_group, 'worker')
  assert.deepEqual(await host.call('GET', `/v1/machines/${id}/metadata`), {
    fly_process_group: 'worker',
  })
  await host.call('DELETE', `/v1/machines/${id}/metadata/fly_process_group`)
  const odd = host.call('POST', `/v1/machines/${id}/metadata/__proto__`, { value: 'x' })
  await assert.rejects(odd, (error) => isFault(error, 'invalid'))
  await host.call('POST', `/v1/machines/${id}/cordon`)
  assert.equal(host.rows.get(id)?.cordoned, true)
  host.driver.onExec = async (_, request) => ({
    exitCode: 4,
    signal: 0,
    stdout: request.argv.join('|'),
    stderr: 'e',
    timedOut: false,
  })
  assert.deepEqual(await host.call('POST', `/v1/machines/${id}/exec`, { cmd: `sh -c 'a b'` }), {
    exit_code: 4,
    stdout: 'sh|-c|a b',
    stderr: 'e',
  })
  assert.equal((await get(host, id)).instance_id, instance_id)
  assert.equal(host.driver.calls.filter((call) => call.startsWith('start')).length, 1)
})

test('MCH-79: a standby rests, and rests on when it is told to stand by no more', async (t) => {
  const host = await openTestHost(t)
  const { id } = await createTestMachine(
    host,
    { standbys: ['0123456789abcd'] },
    { skip_launch: true },
  )
  await wait(host, id, 'state=stopped&timeout=60')
  const update = () =>
    host.call('POST', `/v1/machines/${id}`, { input: { config: { image: 'b' } } })
  await update()
  await wait(host, id, 'state=stopped&timeout=60')
  await update()
  await wait(host, id, 'state=started&timeout=60')
})

test('secrets beat the config, are read at each cold start, and files may come from them', async (t) => {
  const host = await openTestHost(t)
  const files = [{ guest_path: '/etc/key', secret_name: 'FILE' }]
  const { id } = await createTestMachine(
    host,
    { env: { TOKEN: 'config' }, files },
    { skip_launch: true },
  )
  await host.agent.queue.idle()
  await host.call('POST', `/v1/machines/${id}/start`)
  await assert.rejects(wait(host, id, 'state=started&timeout=60'), /needs the secret FILE/)
  const values = { TOKEN: 'secret', FILE: Buffer.from('inhalt').toString('base64') }
  await host.call('PUT', '/v1/apps/web/secrets', { version: 1, values })
  await host.call('POST', `/v1/machines/${id}/start`)
  await wait(host, id, 'state=started&timeout=60')
  assert.equal(host.driver.spec(id)?.env['TOKEN'], 'secret')
  assert.equal(host.driver.spec(id)?.files[0]?.content.toString(), 'inhalt')
})

test('volumes: made, attached to one machine, mounted while it runs, free after it', async (t) => {
  const host = await openTestHost(t)
  const app = { id: 'app_1', name: 'web', org: 'personal', network: 3 }
  await host.call('POST', '/v1/volumes', { id: 'vol_1', app, input: { name: 'data' } })
  const mounts = [{ volume: 'vol_1', path: '/data' }]
  const { id } = await createTestMachine(host, { mounts })
  assert.deepEqual(host.driver.spec(id)?.mounts, [{ source: '/volumes/vol_1', path: '/data' }])
  await assert.rejects(createTestMachine(host, { mounts }), (error) => isFault(error, 'conflict'))
  await assert.rejects(host.call('DELETE', '/v1/volumes/vol_1'), (error) =>
    isFault(error, 'precondition_failed'),
  )
  await host.call('DELETE', `/v1/machines/${id}?kill=true`)
  await wait(host, id, 'state=destroyed&timeout=60')
  assert.deepEqual([...host.mounted], [])
  const gone = await host.call<{ state: string }>('DELETE', '/v1/volumes/vol_1')
  assert.equal(gone.state, 'pending_destroy')
})

test('fifty wakes at once start one machine and answer when it is ready', async (t) => {
  const host = await openTestHost(t)
  const server = http.createServer((_, response) => response.end('ok'))
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.after(() => server.close())
  const { port } = server.address() as AddressInfo
  const services = [{ protocol: 'tcp', internal_port: port }]
  const { id } = await createTestMachine(host, { services }, { skip_launch: true })
  await host.agent.queue.idle()
  const rows = await Promise.all(
    Array.from({ length: 50 }, () =>
      host.call<{ row: { ready: boolean; ip4: string } }>('POST', `/v1/machines/${id}/wake`),
    ),
  )
  assert.ok(rows.every(({ row }) => row.ready && row.ip4 === '127.0.0.1'))
  assert.equal(host.driver.calls.filter((call) => call.startsWith('start')).length, 1)
  const machine = await get(host, id)
  assert.equal(machine.events.find((event) => event.status === 'starting')?.source, 'proxy')
  await host.call('POST', `/v1/machines/${id}/cordon`)
  await host.call('POST', `/v1/machines/${id}/stop`, {})
  await assert.rejects(host.call('POST', `/v1/machines/${id}/wake`), /PM08.*not startable/)
})

test('a stop drains first: every edge has the row, then nothing is in flight, then the signal', async (t) => {
  const host = await openTestHost(t)
  const services = [{ protocol: 'tcp', internal_port: 1 }]
  const { id } = await createTestMachine(host, { services })
  host.edges.edges = ['edge1']
  host.edges.inFlight.set(id, 2)
  await host.call('POST', `/v1/machines/${id}/stop`, {})
  const row = host.rows.get(id)
  assert.deepEqual([row?.state, row?.ready], ['stopping', false])
  const signalled = () => host.driver.calls.some((call) => call.startsWith('signal'))
  host.edges.seen.set(id, row?.counter ?? 0)
  host.edges.word()
  await new Promise((resolve) => setTimeout(resolve, 100))
  assert.equal(signalled(), false)
  host.edges.inFlight.set(id, 0)
  host.edges.word()
  await wait(host, id, 'state=stopped&timeout=60')
  assert.equal(signalled(), true)
  const answer = await host.call('GET', `/v1/machines/${id}/routed?timeout_ms=50`)
  assert.deepEqual(answer, { routed: false, edges: 1 })
  host.edges.seen.set(id, Number.MAX_SAFE_INTEGER)
  assert.deepEqual(await host.call('GET', `/v1/machines/${id}/routed`), { routed: true, edges: 1 })
})

test('a host that dies adopts what runs, tells what ended, and goes on where it was', async (t) => {
  let host = await openTestHost(t)
  const running = await createTestMachine(host)
  const ended = await createTestMachine(host, { restart: { policy: 'no' } })
  const stopping = await createTestMachine(host, { stop_config: { timeout: '60s' } })
  const end = host.driver.onSignal
  host.driver.onSignal = () => {}
  await host.call('POST', `/v1/machines/${stopping.id}/stop`, {})
  host.crash()
  host.driver.finish(ended.id, { exitCode: 9 })
  host.driver.onSignal = end
  host = await host.reopen()
  assert.equal((await get(host, running.id)).state, 'started')
  assert.equal(host.driver.calls.filter((call) => call === `start ${running.id}`).length, 1)
  await wait(host, ended.id, 'state=stopped&timeout=60')
  await wait(host, stopping.id, 'state=stopped&timeout=60')
  const exit = (await get(host, ended.id)).events.find((event) => event.type === 'exit')
  assert.equal(exit?.request?.exit_event?.exit_code, 9)
  host.driver.finish(running.id, { exitCode: 0 })
  await wait(host, running.id, 'state=stopped&timeout=60')
})

test('down stops everything; what ran starts again with the host, what was stopped does not', async (t) => {
  let host = await openTestHost(t)
  const up = await createTestMachine(host)
  const off = await createTestMachine(host)
  await host.call('POST', `/v1/machines/${off.id}/stop`, {})
  await wait(host, off.id, 'state=stopped&timeout=60')
  assert.deepEqual(await host.call('POST', '/v1/down'), { ok: true })
  assert.equal((await get(host, up.id)).state, 'stopped')
  await assert.rejects(host.call('POST', `/v1/machines/${off.id}/start`), (error) =>
    isFault(error, 'conflict'),
  )
  host = await host.reopen()
  await wait(host, up.id, 'state=started&timeout=60')
  assert.equal((await get(host, off.id)).state, 'stopped')
})

test('suspend freezes, start thaws the same process, a stop of a frozen machine discards it', async (t) => {
  const host = await openTestHost(t)
  const { id } = await createTestMachine(host)
  await host.call('POST', `/v1/machines/${id}/suspend`)
  await wait(host, id, 'state=suspended&timeout=60')
  await host.call('POST', `/v1/machines/${id}/start`)
  await wait(host, id, 'state=started&timeout=60')
  assert.equal(host.driver.calls.filter((call) => call.startsWith('start')).length, 1)
  await host.call('POST', `/v1/machines/${id}/suspend`)
  await wait(host, id, 'state=suspended&timeout=60')
  await host.call('POST', `/v1/machines/${id}/stop`, {})
  await wait(host, id, 'state=stopped&timeout=60')
})

test('only who has the cluster key is heard, and errors carry their code', async (t) => {
  const host = await openTestHost(t)
  await assert.rejects(
    host.call('GET', '/v1/host', undefined, { authorization: 'Bearer wrong' }),
    (error) => isFault(error, 'unauthorized'),
  )
  await assert.rejects(host.call('POST', '/v1/machines', { id: 'x' }), (error) =>
    isFault(error, 'invalid'),
  )
  const guest = { cpus: 1, cpu_kind: 'shared', memory_mb: 100_000 }
  await assert.rejects(createTestMachine(host, { guest }), (error) => isFault(error, 'invalid'))
})
