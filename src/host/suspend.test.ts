import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer as createTcpServer } from 'node:net'
import { duplexPair } from 'node:stream'
import { text } from 'node:stream/consumers'
import { test, type TestContext } from 'node:test'
import { Fault, isFault } from '#core/fault.ts'
import type { Machine } from '#spec/machine.ts'
import { fakeDriver, fakeVms } from '#host/runtime/index.ts'
import { eventually, freePort } from '#sys/test-support.ts'
import { apply } from './agent.ts'
import { used } from './capacity.ts'
import { takeDown } from './down.ts'
import { machineApi } from './machine-api.ts'
import { createTestMachine, openTestHost, type TestHost } from './testing.ts'
import { wakeMachine } from './wake.ts'
import { operate } from './work.ts'

const get = (host: TestHost, id: string) => host.call('GET', `/v1/machines/${id}`)
const post = (host: TestHost, id: string, verb: string, body: object = {}) =>
  host.call('POST', `/v1/machines/${id}/${verb}`, body)
const reached = (host: TestHost, id: string, state: string) =>
  host.call('GET', `/v1/machines/${id}/wait?state=${state}&timeout=60`)
const types = (machine: Machine) => machine.events.map((event) => `${event.type}:${event.status}`)

/** A host with VMs and containers, and one VM that was just suspended. */
async function suspendedVm(t: TestContext, config: object = {}) {
  const vms = fakeDriver(fakeVms)
  const host = await openTestHost(t, { vms })
  const { id } = await createTestMachine(host, config)
  await post(host, id, 'suspend')
  await reached(host, id, 'suspended')
  return { host, vms, id, calls: () => vms.calls.filter((call) => call.includes(id)) }
}

test('MCH-41: a suspended VM gives its memory back and goes on where it was', async (t) => {
  const { host, vms, id, calls } = await suspendedVm(t)
  assert.ok(vms.suspended(id))
  assert.equal(used(host.agent).memory_mb, 0)
  assert.equal(host.rows.get(id)?.ready, false)
  host.attached.clear()
  await post(host, id, 'start')
  await reached(host, id, 'started')
  assert.deepEqual(calls(), [`start ${id}`, `suspend ${id}`, `resume ${id}`])
  assert.deepEqual([...host.attached], [id], 'its network was made again')
  assert.equal(used(host.agent).memory_mb, 256)
  const machine = await get(host, id)
  assert.deepEqual(types(machine).slice(0, 2), ['start:started', 'start:starting'])
  assert.equal(machine.events[0]?.request?.['resumed'], true)
  assert.deepEqual(types(machine).slice(2, 4), ['suspend:suspended', 'suspend:suspending'])
  assert.equal(host.rows.get(id)?.ready, true)
  vms.finish(id, { exitCode: 3 })
  await host.agent.queue.idle()
  assert.equal((await get(host, id)).events.filter(({ type }) => type === 'exit').length, 1)
})

test('a request wakes a suspended VM', async (t) => {
  const { host, id, calls } = await suspendedVm(t)
  const rows = await Promise.all([wakeMachine(host.agent, id), wakeMachine(host.agent, id)])
  assert.deepEqual(
    rows.map((row) => row.ready),
    [true, true],
  )
  assert.equal(calls().filter((call) => call === `resume ${id}`).length, 1)
})

test('MCH-42: without its snapshot a VM boots, and keeps what it wrote to its root', async (t) => {
  const { host, vms, id, calls } = await suspendedVm(t)
  vms.loseSnapshot(id)
  await post(host, id, 'start')
  await reached(host, id, 'started')
  assert.deepEqual(calls(), [`start ${id}`, `suspend ${id}`, `start ${id}`])
  assert.equal(vms.spec(id)?.keepRoot, true)
  assert.equal((await get(host, id)).events[0]?.request?.['resumed'], false)
  await post(host, id, 'restart')
  await reached(host, id, 'started')
  await host.agent.queue.idle()
  assert.equal(vms.spec(id)?.keepRoot, false, 'MCH-65: only then')
})

for (const [how, startsWithHost] of [
  ['its owner starts it again', false],
  ['its host tries until it works', true],
] as const) {
  test(`MCH-42: a root that a lost snapshot left outlives starts that fail: ${how}`, async (t) => {
    const { host, vms, id } = await suspendedVm(t)
    vms.loseSnapshot(id)
    vms.failNextStart(new Fault('native_failed', 'out of memory'), startsWithHost ? 6 : 3)
    if (startsWithHost) {
      const begin = () =>
        apply(host.agent, host.agent.store.machines.get(id), { type: 'start', revive: true })
      await operate(host.agent, id, begin)
    } else {
      await post(host, id, 'start')
      await host.agent.queue.idle()
      assert.equal((await get(host, id)).state, 'failed')
      assert.ok(vms.roots.has(id))
      await post(host, id, 'start')
    }
    await host.call('GET', `/v1/machines/${id}/wait?state=started&timeout=60`)
    assert.ok(vms.calls.includes(`destroy ${id}`), 'it was cleared up behind the failure')
    assert.deepEqual([vms.roots.has(id), vms.spec(id)?.keepRoot], [true, true])
    await post(host, id, 'restart')
    await host.agent.queue.idle()
    assert.equal(vms.spec(id)?.keepRoot, false, 'MCH-65: it was owed once')
  })
}

test('MCH-42: nor does a host take that root that is taken down between the tries', async (t) => {
  const { host, vms, id } = await suspendedVm(t)
  vms.loseSnapshot(id)
  vms.failNextStart(new Fault('native_failed', 'out of memory'), 3)
  const begin = () =>
    apply(host.agent, host.agent.store.machines.get(id), { type: 'start', revive: true })
  const tried = operate(host.agent, id, begin)
  await reached(host, id, 'restarting')
  await takeDown(host.agent)
  await tried
  assert.equal(host.agent.store.machines.get(id).life.state, 'stopped')
  assert.ok(vms.roots.has(id))
  const next = await host.reopen()
  await reached(next, id, 'started')
  assert.equal(vms.spec(id)?.keepRoot, true)
})

test('a snapshot that cannot be resumed is a cold start', async (t) => {
  const { host, vms, id, calls } = await suspendedVm(t)
  vms.spoilSnapshot(id)
  await post(host, id, 'start')
  await reached(host, id, 'started')
  assert.equal(calls().at(-1), `start ${id}`)
  assert.equal(vms.spec(id)?.keepRoot, true)
})

test('what keeps the network away from a resume does not cost the snapshot', async (t) => {
  const { host, id, calls } = await suspendedVm(t)
  const attach = host.agent.net.attach.bind(host.agent.net)
  let failures = 1
  host.agent.net.attach = (request) =>
    failures-- > 0 ? Promise.reject(new Error('no buffer space')) : attach(request)
  await post(host, id, 'start')
  await reached(host, id, 'started')
  assert.equal(calls().filter((call) => call.startsWith('start')).length, 1)
  assert.equal((await get(host, id)).events[0]?.request?.['resumed'], true)
})

test('a resume that fails for our own fault leaves the machine suspended, and says so', async (t) => {
  const { host, vms, id, calls } = await suspendedVm(t)
  vms.failNextResume(new Fault('native_failed', 'no memory for a monitor'), 6)
  await post(host, id, 'start')
  await assert.rejects(reached(host, id, 'started'), (error) => {
    assert.ok(isFault(error, 'bad_request'))
    assert.match(
      error.message,
      /currently suspended: no memory for a monitor; it is still suspended/,
    )
    return true
  })
  assert.ok(vms.suspended(id))
  const machine = await get(host, id)
  assert.deepEqual(types(machine).slice(0, 2), ['start:failed', 'start:starting'])
  await assert.rejects(wakeMachine(host.agent, id), (error) => {
    assert.ok(isFault(error, 'precondition_failed'))
    assert.match(error.message, /PM08.*its resume failed: no memory for a monitor/)
    return true
  })
  // What mends it is enough: nothing was lost.
  assert.equal((await wakeMachine(host.agent, id)).ready, true)
  assert.equal(calls().filter((call) => call.startsWith('start')).length, 1)
  assert.equal((await get(host, id)).events[0]?.request?.['resumed'], true)
})

test('a runtime that cannot be asked costs no snapshot either', async (t) => {
  const { host, vms, id, calls } = await suspendedVm(t)
  const recover = vms.recover.bind(vms)
  let works = false
  vms.recover = async (machine) => {
    if (!works) throw new Fault('native_failed', 'qemu is not installed')
    return recover(machine)
  }
  await post(host, id, 'start')
  await host.agent.queue.idle()
  assert.equal((await get(host, id)).state, 'suspended')
  works = true
  await post(host, id, 'start')
  await reached(host, id, 'started')
  assert.deepEqual(calls().at(-1), `resume ${id}`)
})

for (const [what, act, state] of [
  ['a stop', (host: TestHost, id: string) => post(host, id, 'stop'), 'stopped'],
  [
    'a forced destruction',
    (host: TestHost, id: string) => host.call('DELETE', `/v1/machines/${id}?force=true`),
    'destroyed',
  ],
] as const) {
  test(`${what} does not wait behind a suspend that hangs`, async (t) => {
    const vms = fakeDriver(fakeVms)
    const host = await openTestHost(t, { vms })
    const { id } = await createTestMachine(host)
    vms.hangSuspends()
    await post(host, id, 'suspend')
    await eventually('it suspends', () => vms.calls.includes(`suspend ${id}`))
    await act(host, id)
    await reached(host, id, state)
    await host.agent.queue.idle()
    assert.equal((await get(host, id)).state, state)
  })
}

test('a stop that breaks off a suspend ends the machine as it asks, not as the config does', async (t) => {
  const vms = fakeDriver(fakeVms)
  const host = await openTestHost(t, { vms })
  const { id } = await createTestMachine(host, { stop_config: { signal: 'SIGTERM' } })
  vms.hangSuspends()
  await post(host, id, 'suspend')
  await eventually('it suspends', () => vms.calls.includes(`suspend ${id}`))
  await post(host, id, 'stop', { signal: 'SIGQUIT', timeout: '9s' })
  await reached(host, id, 'stopped')
  const signals = vms.calls.filter((call) => call.startsWith('signal'))
  assert.deepEqual(signals, [`signal ${id} SIGQUIT`])
  const told = types(await get(host, id)).slice(0, 3)
  assert.deepEqual(told, ['exit:stopped', 'stop:stopping', 'suspend:suspending'])
})

test('a start waits for a suspend that is under way, and does not break it off', async (t) => {
  const vms = fakeDriver(fakeVms)
  const host = await openTestHost(t, { vms })
  const { id } = await createTestMachine(host)
  const suspend = vms.suspend.bind(vms)
  vms.suspend = async (machine, signal) => {
    await host.agent.clock.sleep(100)
    signal?.throwIfAborted()
    await suspend(machine)
  }
  await post(host, id, 'suspend')
  await post(host, id, 'start')
  await reached(host, id, 'started')
  assert.deepEqual(vms.calls.slice(-1), [`resume ${id}`])
})

test('MCH-44: a machine suspends itself through its own socket, without a token, and no other', async (t) => {
  const vms = fakeDriver(fakeVms)
  const host = await openTestHost(t, { vms })
  const { id } = await createTestMachine(host)
  const other = await createTestMachine(host)
  const serve = machineApi(() => host.agent)
  const ask = async (path: string) => {
    const [ours, theirs] = duplexPair()
    serve(id, theirs)
    ours.write(`POST ${path} HTTP/1.1\r\nhost: flaps\r\nconnection: close\r\n\r\n`)
    return text(ours)
  }
  assert.match(await ask(`/v1/apps/web/machines/${other.id}/suspend`), /403[^]*speaks for no other/)
  assert.match(await ask(`/v1/apps/shop/machines/${id}/suspend`), /403/)
  assert.match(await ask(`/v1/apps/web/machines/${id}/stop`), /404[^]*may ask for POST/)
  assert.match(await ask(`/v1/apps/web/machines/${id}/suspend`), /200 OK[^]*{"ok":true}/)
  await reached(host, id, 'suspended')
  assert.equal((await get(host, other.id)).state, 'started')
})

test(
  'MCH-44: a program that says nothing, or half of a wish, is hung up on',
  { timeout: 60_000 },
  async (t) => {
    const host = await openTestHost(t)
    const { id } = await createTestMachine(host)
    const serve = machineApi(() => host.agent, { timeoutMs: 50 })
    for (const words of ['', 'POST /v1/apps/web/mach', 'GET / HTTP/1.1\r\nhost: flaps\r\n\r\n']) {
      const [ours, theirs] = duplexPair()
      serve(id, theirs)
      ours.write(words)
      await text(ours)
      assert.equal(theirs.destroyed, true)
    }
  },
)

test('the hour that a machine slept is not held against it: its checks have their grace anew', async (t) => {
  const port = await freePort()
  const app = createTcpServer().listen(port, '127.0.0.1')
  await once(app, 'listening')
  const alive = { type: 'tcp', port, interval: '2s', grace_period: '30s' }
  const { host, id } = await suspendedVm(t, { checks: { alive } })
  const { clock } = host.agent
  const hourMs = 3_600_000
  host.agent.clock = { ...clock, now: () => clock.now() + hourMs }
  app.close()
  await post(host, id, 'start')
  await reached(host, id, 'started')
  const check = () => host.agent.runs.get(id)?.health.statuses[0]
  await eventually('it is checked', () => check()?.output !== 'not checked yet')
  assert.equal(check()?.status, 'warning')
  assert.equal((await get(host, id)).state, 'started')
  app.listen(port, '127.0.0.1')
  await eventually('it passes', () => check()?.status === 'passing')
  app.close()
})

test('PRX-43: a suspend that fails becomes a stop', async (t) => {
  const vms = fakeDriver(fakeVms)
  const host = await openTestHost(t, { vms })
  const { id } = await createTestMachine(host)
  vms.failNextSuspend(new Error('disk full'))
  await post(host, id, 'suspend')
  await reached(host, id, 'stopped')
  assert.equal(types(await get(host, id))[0], 'exit:stopped')
})

for (const [verb, act, state] of [
  ['a stop', (host: TestHost, id: string) => post(host, id, 'stop'), 'stopped'],
  [
    'an update',
    (host: TestHost, id: string) =>
      host.call('POST', `/v1/machines/${id}`, { input: { config: { image: 'second' } } }),
    'started',
  ],
  [
    'a destruction',
    (host: TestHost, id: string) => host.call('DELETE', `/v1/machines/${id}`),
    'destroyed',
  ],
] as const) {
  test(`MCH-42: ${verb} discards the snapshot`, async (t) => {
    const { host, vms, id, calls } = await suspendedVm(t)
    await act(host, id)
    await reached(host, id, state)
    assert.ok(calls().includes(`signal ${id} SIGKILL`))
    assert.ok(!calls().some((call) => call.startsWith('resume')))
    assert.equal(vms.suspended(id), false)
    const machine = await get(host, id)
    assert.equal(machine.events.filter(({ type }) => type === 'exit').length, 1)
    if (state === 'started') assert.equal(vms.spec(id)?.keepRoot, false)
  })
}

test('a snapshot survives a host that is taken down, a frozen container does not', async (t) => {
  const vms = fakeDriver(fakeVms)
  let host = await openTestHost(t, { vms })
  const { id: vm } = await createTestMachine(host)
  const { id: box } = await createTestMachine(host, { metadata: { hangar_runtime: 'container' } })
  for (const id of [vm, box]) {
    await post(host, id, 'suspend')
    await reached(host, id, 'suspended')
  }
  assert.equal(used(host.agent).memory_mb, 256, 'what is frozen holds its memory')
  await takeDown(host.agent)
  host = await host.reopen()
  await host.agent.queue.idle()
  assert.equal((await get(host, vm)).state, 'suspended')
  assert.equal((await get(host, box)).state, 'stopped')
  await post(host, vm, 'start')
  await reached(host, vm, 'started')
  assert.equal((await get(host, vm)).events[0]?.request?.['resumed'], true)
})

test('one host has both kinds, says which wall each is behind, and adopts both', async (t) => {
  const vms = fakeDriver(fakeVms)
  let host = await openTestHost(t, { vms })
  const vm = await createTestMachine(host)
  const box = await createTestMachine(host, { metadata: { hangar_runtime: 'container' } })
  assert.deepEqual(vm.runtime?.isolation, 'vm')
  assert.deepEqual([vm.runtime?.kind, vm.runtime?.accel], ['qemu', 'kvm'])
  assert.deepEqual([box.runtime?.kind, box.runtime?.accel], ['container', null])
  assert.ok(vms.spec(vm.id) && host.driver.spec(box.id))
  assert.ok(!vms.spec(box.id) && !host.driver.spec(vm.id))
  host = await host.reopen()
  for (const { id } of [vm, box]) assert.equal((await get(host, id)).state, 'started')
  vms.finish(vm.id, { exitCode: 0 })
  host.driver.finish(box.id, { exitCode: 0 })
  for (const { id } of [vm, box]) await reached(host, id, 'stopped')
  const info = await host.call<Record<string, string>>('GET', '/v1/host')
  assert.deepEqual([info['runtime'], info['accel'], info['isolation']], ['qemu', 'kvm', 'vm'])
})

test('a stopped machine moves to the other runtime with its next start, and its volume with it', async (t) => {
  const vms = fakeDriver(fakeVms)
  const host = await openTestHost(t, { vms, wish: 'container' })
  await host.call('POST', '/v1/volumes', {
    id: 'vol_1',
    app: { id: 'app_1', name: 'web', org: 'personal', network: 3 },
    input: { name: 'data' },
  })
  const mounts = [{ volume: 'vol_1', path: '/data' }]
  const { id } = await createTestMachine(host, { mounts })
  assert.equal(host.driver.spec(id)?.mounts[0]?.source, '/volumes/vol_1')
  await host.call('POST', `/v1/machines/${id}/metadata/hangar_runtime`, { value: 'qemu' })
  assert.equal((await get(host, id)).runtime?.kind, 'container', 'not before it starts')
  await post(host, id, 'restart')
  await host.agent.queue.idle()
  assert.equal((await get(host, id)).runtime?.kind, 'qemu')
  assert.equal(vms.spec(id)?.mounts[0]?.source, '/volumes/vol_1.img')
  assert.equal(host.driver.spec(id), undefined, 'the other one has nothing of it any more')
  await assert.rejects(
    host.call('POST', `/v1/machines/${id}/metadata/hangar_runtime`, { value: 'vm' }),
    (error) => isFault(error, 'invalid') && /hangar_runtime is "vm"/.test(error.message),
  )
})

test('a machine that wants a VM where none boots fails, and is never put behind a weaker wall', async (t) => {
  const vms = fakeDriver({ ...fakeVms, probe: { ok: false, note: 'qemu is not installed' } })
  const host = await openTestHost(t, { vms, wish: 'container' })
  const metadata = { hangar_runtime: 'qemu' }
  const { id } = await createTestMachine(host, { metadata }, { skip_launch: true })
  await post(host, id, 'start')
  await reached(host, id, 'settled')
  const machine = await get(host, id)
  assert.equal(machine.state, 'failed')
  assert.match(String(machine.events[0]?.request?.error), /qemu is not installed/)
  assert.equal(host.driver.spec(id), undefined)
})

test('MCH-40: what cannot be suspended is refused with the reason', async (t) => {
  const vms = fakeDriver(fakeVms)
  const host = await openTestHost(t, { vms })
  for (const [config, why] of [
    [{ guest: { cpu_kind: 'shared', cpus: 2, memory_mb: 4096 } }, /at most 2048 MB/],
    [{ init: { swap_size_mb: 512 } }, /it has swap/],
    [{ schedule: 'daily' }, /it has a schedule/],
  ] as const) {
    const { id } = await createTestMachine(host, config)
    await assert.rejects(post(host, id, 'suspend'), (error) => {
      assert.ok(isFault(error, 'precondition_failed'))
      assert.match(error.message, why)
      return true
    })
    assert.equal((await get(host, id)).state, 'started')
  }
})
