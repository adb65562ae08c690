import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isFault } from '#core/fault.ts'
import { composeDrivers } from './composed-driver.ts'
import type { StartSpec } from './driver.ts'
import { fakeDriver, fakeVms } from './fake-driver.ts'

const specOf = (id: string, given: Partial<StartSpec> = {}): StartSpec => ({
  id,
  instanceId: '1',
  squashfsPath: '/none',
  argv: ['sleep'],
  env: {},
  user: '',
  workdir: '',
  hostname: id,
  hosts: '',
  resolvConf: '',
  files: [],
  mounts: [],
  netnsPath: '/none',
  limits: { cpus: 1, cpuKind: 'shared', memoryMb: 256 },
  logFile: '/none',
  tty: false,
  ...given,
})

function both() {
  const qemu = fakeDriver(fakeVms)
  const container = fakeDriver()
  return { qemu, container, open: () => composeDrivers({ qemu, container }) }
}

test('each verb goes to the driver that has the machine, also of those that an earlier process started', async () => {
  const { qemu, container, open } = both()
  const first = open()
  await first.start(specOf('vm', { runtime: 'qemu' }))
  await first.start(specOf('box', { runtime: 'container' }))
  const next = open()
  assert.deepEqual((await next.list()).toSorted(), ['box', 'vm'])
  await next.suspend('vm')
  await next.suspend('box')
  assert.deepEqual([qemu.suspended('vm'), container.suspended('box')], [true, true])
  await next.signal('vm', 'SIGKILL')
  assert.equal((await next.exited('vm')).exitCode, 137)
  assert.equal(await next.recover('box'), 'running')
  await next.destroy('vm')
  assert.equal(await next.recover('vm'), undefined)
  await assert.rejects(next.exited('vm'), (error) => isFault(error, 'not_found'))
  await assert.rejects(next.suspend('vm'), (error) => isFault(error, 'precondition_failed'))
  assert.equal(await next.signal('vm', 'SIGTERM'), false)
})

test('a machine is gone from the one driver before it starts in the other', async () => {
  const { qemu, container, open } = both()
  const driver = open()
  await driver.start(specOf('m', { runtime: 'container' }))
  await driver.start(specOf('m', { runtime: 'qemu' }))
  assert.deepEqual(await container.list(), [])
  assert.deepEqual(await qemu.list(), ['m'])
  assert.equal(await driver.recover('m'), 'running')
})

test('MCH-65: a root that is kept stays with its driver, and is gone when it is kept no more', async () => {
  const { qemu, container, open } = both()
  await open().start(specOf('m', { runtime: 'qemu' }))
  await open().destroy('m', { keepRoot: true })
  const next = open()
  assert.deepEqual(await next.list(), ['m'])
  assert.equal(await next.recover('m'), undefined)
  await next.destroy('m', { keepRoot: true })
  assert.ok(qemu.roots.has('m'))
  await next.start(specOf('m', { runtime: 'container' }))
  assert.deepEqual([qemu.roots.has('m'), container.roots.has('m')], [false, true])
  await next.destroy('m')
  assert.deepEqual(await open().list(), [])
})

test('of a machine that both have what runs is kept, whichever that is', async () => {
  for (const runs of ['qemu', 'container'] as const) {
    const { qemu, container, open } = both()
    for (const one of [qemu, container]) await one.start(specOf('m'))
    ;(runs === 'qemu' ? container : qemu).finish('m')
    const driver = open()
    assert.equal(await driver.recover('m'), 'running')
    assert.deepEqual(await qemu.list(), runs === 'qemu' ? ['m'] : [])
    assert.deepEqual(await container.list(), runs === 'container' ? ['m'] : [])
  }
})
