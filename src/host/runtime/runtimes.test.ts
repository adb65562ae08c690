import assert from 'node:assert/strict'
import { test } from 'node:test'
import { systemClock, type Clock } from '#core/clock.ts'
import { isFault } from '#core/fault.ts'
import type { RuntimeWish } from '#spec/runtime.ts'
import type { DriverProbe } from './driver.ts'
import { fakeDriver, fakeVms } from './fake-driver.ts'
import { openRuntimes } from './runtimes.ts'

/** A host with both kinds, where a VM turns out as the probe says. */
function host(given: {
  clock?: Clock
  pending?: Promise<void>
  wish?: RuntimeWish
  kvm?: boolean
  vm?: DriverProbe
  qemu?: boolean
}) {
  let probes = 0
  const qemu = fakeDriver({ ...fakeVms, ...(given.vm ? { probe: given.vm } : {}) })
  const probe = qemu.probe.bind(qemu)
  qemu.probe = () => {
    probes++
    return (given.pending ?? Promise.resolve()).then(probe)
  }
  const runtimes = openRuntimes({
    drivers: { ...(given.qemu === false ? {} : { qemu }), container: fakeDriver() },
    wish: given.wish ?? 'auto',
    whyNoKvm: async () => (given.kvm === false ? 'no such device' : undefined),
    ...(given.clock ? { clock: given.clock } : {}),
    log: { info: () => {} },
  })
  return { runtimes, probes: () => probes }
}

test('auto takes the VM that boots by KVM, and nothing is chosen before that is known', async () => {
  const { runtimes, probes } = host({})
  const known = runtimes.begin()
  assert.equal(runtimes.usual, undefined)
  assert.match(runtimes.note, /finding out/)
  const [first, second] = await Promise.all([runtimes.choose('auto'), runtimes.choose('auto')])
  await known
  assert.deepEqual([first, second, runtimes.usual, probes()], ['qemu', 'qemu', 'qemu', 1])
  assert.equal(await runtimes.choose('container'), 'container')
})

test('auto takes no VM that a program plays, and says why; asked by name it is taken', async () => {
  const vm: DriverProbe = { ok: true, note: 'no guest boots by KVM here', accel: 'tcg' }
  const { runtimes } = host({ vm })
  assert.equal(await runtimes.choose('auto'), 'container')
  await runtimes.begin()
  assert.match(runtimes.note, /a fake.*no guest boots by KVM here/)
  assert.equal(await runtimes.choose('qemu'), 'qemu')
  assert.equal(runtimes.expect('auto'), 'container')
})

test('without KVM nothing is booted to find that out', async () => {
  const { runtimes, probes } = host({ kvm: false })
  await runtimes.begin()
  assert.equal(runtimes.usual, 'container')
  assert.match(runtimes.note, /KVM does not work here \(no such device\)/)
  assert.equal(probes(), 0)
})

test('a VM that was asked for and cannot be is an error, never a weaker wall', async () => {
  const vm: DriverProbe = { ok: false, note: 'qemu is not installed' }
  const { runtimes } = host({ vm, wish: 'qemu' })
  await runtimes.begin()
  assert.equal(runtimes.usual, 'qemu')
  for (const wish of ['auto', 'qemu'] as const) {
    await assert.rejects(runtimes.choose(wish), (error) => {
      assert.ok(isFault(error, 'native_failed'))
      assert.match(error.message, /qemu is not installed/)
      return true
    })
  }
  await assert.rejects(host({ qemu: false }).runtimes.choose('qemu'), /no qemu on this host/)
})

test('what did not work is tried again by a later start, and not by each', async () => {
  let now = 1_000
  const clock: Clock = { ...systemClock, now: () => now }
  const vm = { ok: false, note: 'PID 1 is not built' }
  const { runtimes, probes } = host({ vm, wish: 'qemu', clock })
  for (let i = 0; i < 3; i++) await assert.rejects(runtimes.choose('auto'), /PID 1 is not built/)
  assert.equal(probes(), 1)
  Object.assign(vm, { ok: true, note: 'a VM' })
  now += 10_000
  assert.deepEqual([await runtimes.choose('auto'), probes()], ['qemu', 2])
  now += 60_000
  assert.deepEqual([await runtimes.choose('auto'), probes()], ['qemu', 2])
})

test('a start does not wait for ever to learn whether a VM boots', async () => {
  const { promise: pending, resolve } = Promise.withResolvers<void>()
  const clock: Clock = { ...systemClock, sleep: async () => {} }
  const { runtimes } = host({ clock, pending })
  assert.equal(await runtimes.choose('auto'), 'container')
  assert.equal(runtimes.usual, undefined, 'that is no verdict')
  resolve()
  await pending
  while (runtimes.usual === undefined) await new Promise(setImmediate)
  assert.equal(await runtimes.choose('auto'), 'qemu')
})
