import assert from 'node:assert/strict'
import { test, type TestContext } from 'node:test'
import { Fault, isFault } from '#core/fault.ts'
import { fakeDriver, fakeVms } from '#host/runtime/index.ts'
import { takeDown } from './down.ts'
import { createTestMachine, openTestHost, type TestHost } from './testing.ts'

const post = (host: TestHost, id: string, verb: string, body: object = {}) =>
  host.call('POST', `/v1/machines/${id}/${verb}`, body)
const reached = async (host: TestHost, id: string, state: string) => {
  await host.call('GET', `/v1/machines/${id}/wait?state=${state}&timeout=60`)
  await host.agent.queue.idle()
}
const update = (host: TestHost, id: string, config: object, input: object = {}) =>
  host.call('POST', `/v1/machines/${id}`, {
    input: { config: { image: 'b', ...config }, ...input },
  })
const restarted = async (host: TestHost, id: string) => {
  await post(host, id, 'restart')
  await reached(host, id, 'started')
}
const stopped = async (host: TestHost, id: string) => {
  await post(host, id, 'stop')
  await reached(host, id, 'stopped')
}
const invalid = (words: RegExp) => (error: unknown) =>
  isFault(error, 'invalid') && words.test(error.message)

const persisting = (persist: string) => ({ rootfs: { persist } })
const keeps = (host: TestHost, id: string) => host.driver.spec(id)?.keepRoot

async function machine(t: TestContext, persist: string) {
  const host = await openTestHost(t)
  const { id } = await createTestMachine(host, persisting(persist))
  assert.equal(host.driver.spec(id)?.lastingRoot, persist !== 'never')
  return { host, id }
}

for (const persist of ['never', 'restart', 'always']) {
  const kept = persist !== 'never'
  test(`MCH-65: over a stop, a restart, a crash and a death of the host, ${persist} ${kept ? 'keeps' : 'does not keep'} the root`, async (t) => {
    const { host, id } = await machine(t, persist)
    await stopped(host, id)
    assert.equal(host.driver.roots.has(id), kept)
    await post(host, id, 'start')
    await reached(host, id, 'started')
    assert.equal(keeps(host, id), kept)
    await restarted(host, id)
    assert.equal(keeps(host, id), kept)
    const starts = () => host.driver.calls.filter((call) => call === `start ${id}`).length
    const before = starts()
    host.driver.finish(id, { exitCode: 1 })
    await reached(host, id, 'started')
    assert.deepEqual([starts(), keeps(host, id)], [before + 1, kept])
    const next = await host.reopen()
    next.driver.finish(id, { exitCode: 1 })
    await reached(next, id, 'started')
    await stopped(next, id)
    const last = await next.reopen()
    await post(last, id, 'start')
    await reached(last, id, 'started')
    assert.equal(keeps(last, id), kept)
    await last.call('DELETE', `/v1/machines/${id}?force=true`)
    await reached(last, id, 'destroyed')
    assert.ok(!last.driver.roots.has(id))
  })
}

test('MCH-65: an update keeps the root for a version that says always, whatever its image, from one that kept it', async (t) => {
  const rows = [
    ['always', 'always', true],
    ['restart', 'always', true],
    ['always', 'restart', false],
    ['restart', 'restart', false],
    ['never', 'always', false],
  ] as const
  for (const [before, after, kept] of rows) {
    const { host, id } = await machine(t, before)
    await update(host, id, persisting(after))
    await reached(host, id, 'started')
    assert.equal(keeps(host, id), kept, `${before} → ${after}`)
    await restarted(host, id)
    assert.equal(keeps(host, id), true, `${before} → ${after}: from then on`)
  }
})

test('a root that an update ended is not found again: not after a failed start, a death or another update', async (t) => {
  const { host, id } = await machine(t, 'restart')
  const parkedUpdate = async (on: TestHost, persist: string) => {
    await update(on, id, persisting(persist), { skip_launch: true })
    await reached(on, id, 'stopped')
  }
  await stopped(host, id)
  await parkedUpdate(host, 'restart')
  assert.ok(!host.driver.roots.has(id))
  const next = await host.reopen()
  await parkedUpdate(next, 'always')
  next.driver.failNextStart(new Fault('invalid', 'no such program'))
  await post(next, id, 'start')
  await reached(next, id, 'failed')
  await post(next, id, 'start')
  await reached(next, id, 'started')
  assert.equal(keeps(next, id), false)
  await restarted(next, id)
  assert.equal(keeps(next, id), true)
})

test('a start that fails keeps the root', async (t) => {
  const { host, id } = await machine(t, 'restart')
  await stopped(host, id)
  host.driver.failNextStart(new Error('no memory'))
  await post(host, id, 'start')
  await reached(host, id, 'started')
  assert.equal(keeps(host, id), true)
})

test('a frozen machine keeps its root over a host that is taken down', async (t) => {
  const { host, id } = await machine(t, 'restart')
  await post(host, id, 'suspend')
  await reached(host, id, 'suspended')
  await takeDown(host.agent)
  assert.ok(host.driver.roots.has(id))
  const next = await host.reopen()
  await reached(next, id, 'stopped')
  assert.ok(next.driver.roots.has(id))
})

test('guest.persist_rootfs, as fly.toml has it, does the same', async (t) => {
  const host = await openTestHost(t)
  const { id } = await createTestMachine(host, { guest: { persist_rootfs: 'always' } })
  await update(host, id, { guest: { persist_rootfs: 'always' } })
  await reached(host, id, 'started')
  assert.equal(keeps(host, id), true)
})

test('a kept root grows and never shrinks', async (t) => {
  const sized = (size_gb: number, persist = 'always') => ({ rootfs: { persist, size_gb } })
  const host = await openTestHost(t)
  const { id } = await createTestMachine(host, sized(2))
  assert.equal(host.driver.spec(id)?.rootSizeMb, 2048)
  await update(host, id, sized(4))
  await reached(host, id, 'started')
  assert.equal(host.driver.spec(id)?.rootSizeMb, 4096)
  await assert.rejects(update(host, id, sized(3)), invalid(/has 4 GB and cannot shrink to 3 GB/))
  assert.equal((await host.call('GET', `/v1/machines/${id}`)).config.rootfs?.size_gb, 4)
  await update(host, id, sized(3, 'restart'))
  await reached(host, id, 'started')
  assert.deepEqual([host.driver.spec(id)?.rootSizeMb, keeps(host, id)], [3072, false])
})

test('a machine that keeps its root stays where that is, and nobody is told otherwise in silence', async (t) => {
  const vms = fakeDriver(fakeVms)
  const host = await openTestHost(t, { vms })
  const { id } = await createTestMachine(host, persisting('always'))
  const wish = (kind: string) => ({ metadata: { hangar_runtime: kind } })
  const refused = invalid(/keeps its root .* that of a VM and cannot become that of a container/)
  await assert.rejects(post(host, id, 'metadata/hangar_runtime', { value: 'container' }), refused)
  await assert.rejects(update(host, id, { ...persisting('always'), ...wish('container') }), refused)
  // The host's operator changes what machines take that say nothing.
  await stopped(host, id)
  host.crash()
  const next = await openTestHost(t, { ...host.given, wish: 'container' })
  assert.equal((await next.call('GET', `/v1/machines/${id}`)).runtime?.kind, 'qemu')
  await post(next, id, 'start')
  await reached(next, id, 'started')
  assert.equal(vms.spec(id)?.keepRoot, true)
  await update(next, id, { ...persisting('never'), ...wish('container') })
  await reached(next, id, 'started')
  assert.deepEqual([vms.roots.has(id), next.driver.spec(id)?.keepRoot], [false, false])
})

test('MCH-65: that a new root was begun outlives a power loss; a start that keeps its root need not', async (t) => {
  const { host, id } = await machine(t, 'restart')
  const { store } = host.agent
  const transaction = store.transaction.bind(store)
  const stateNow = () => store.machines.get(id).life.state
  const begun: unknown[] = []
  store.transaction = (act, durability) => {
    const before = stateNow()
    const result = transaction(act, durability)
    if (before === 'starting' && stateNow() === 'started') begun.push(durability)
    return result
  }
  await restarted(host, id)
  await update(host, id, persisting('restart'))
  await reached(host, id, 'started')
  assert.equal(keeps(host, id), false)
  await restarted(host, id)
  assert.deepEqual(begun, ['crash', 'power', 'crash'])
})
