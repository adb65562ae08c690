import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import http from 'node:http'
import type { ChildProcess } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { systemClock } from '#core/clock.ts'
import { findDaemon } from '#sys/daemon.ts'
import { readTextFile } from '#sys/files.ts'
import { eventually } from '#sys/test-support.ts'
import {
  get,
  holdWakerSocket,
  killed,
  makeWorld,
  release,
  serving,
  settled,
  spawnEdge,
  type World,
} from './test-support.ts'

describe('the edge, killed', () => {
  let world: World
  let edge: ChildProcess
  let socket: { fd: number; close(): void }
  const haproxyPid = () => findDaemon(`${world.settings.dir}/haproxy.json`)?.pid
  before(async () => {
    world = await makeWorld({ slots: 64 })
    socket = holdWakerSocket(world.settings.waker_port)
    edge = spawnEdge(world, socket.fd)
    await serving(edge)
    await world.host.add('m1', {})
    await world.host.add('m2', {})
    await settled(world)
  })
  after(async () => {
    if (edge) await killed(edge)
    socket?.close()
    await world?.close()
  })

  test('and started again under load: no request is lost, HAProxy and its servers are adopted', async () => {
    const pid = haproxyPid()
    const load = startLoad(world)
    await systemClock.sleep(300)
    await killed(edge)
    await systemClock.sleep(200)
    edge = spawnEdge(world, socket.fd)
    await serving(edge)
    await settled(world)
    const { statuses, errors } = await load.stop()
    assert.deepEqual(errors, [])
    assert.deepEqual([...new Set(statuses)], [200])
    assert.ok(statuses.length > 40, `${statuses.length} requests`)
    assert.equal(haproxyPid(), pid)
    const log = readFileSync(`${world.settings.dir}/haproxy.log`, 'utf8')
    assert.doesNotMatch(log, /m1.*(DOWN|MAINT)/)
  })

  test('a machine stopped and one added while it was dead are as they should be when it is back', async () => {
    await killed(edge)
    await world.host.put('m1', { state: 'stopped', ready: false })
    await world.host.unlisten('m1')
    await world.host.add('m3', {})
    edge = spawnEdge(world, socket.fd)
    await serving(edge)
    await settled(world)
    const machines = new Set<string>()
    for (let i = 0; i < 12; i++) {
      const got = await get(world.settings)
      assert.equal(got.status, 200)
      machines.add((JSON.parse(got.text) as { machine: string }).machine)
    }
    assert.deepEqual([...machines].sort(), ['m2', 'm3'])
  })

  test('a cold request sent while it is dead waits for it and is answered', async () => {
    const machine = await world.host.add('m-cold', { app: 'cold', state: 'stopped' })
    await settled(world)
    await killed(edge)
    const cold = get(world.settings, { host: 'cold.hangar.localhost' })
    await systemClock.sleep(300)
    edge = spawnEdge(world, socket.fd)
    assert.equal((await cold).status, 200)
    assert.equal(machine.wakes, 1)
    await serving(edge)
  })

  test('HAProxy itself killed: back with all servers', async () => {
    await settled(world)
    const pid = haproxyPid()
    assert.ok(pid)
    process.kill(pid, 'SIGKILL')
    await eventually('a 200 again', async () => {
      const got = await get(world.settings).catch(() => undefined)
      return got?.status === 200
    })
    assert.notEqual(haproxyPid(), pid)
    assert.equal((await get(world.settings, { host: 'cold.hangar.localhost' })).status, 200)
  })

  test('with the bus gone it wakes from its last good copy, even after a kill', async () => {
    await world.host.add('m-nobus', { app: 'nobus', state: 'stopped' })
    await settled(world)
    await eventually('the copy on disk has it', () =>
      readTextFile(`${world.settings.dir}/last-good.json`)?.includes('"m-nobus"'),
    )
    await world.stopNats()
    assert.equal((await get(world.settings)).status, 200)
    await killed(edge)
    edge = spawnEdge(world, socket.fd)
    await serving(edge)
    assert.equal((await get(world.settings, { host: 'nobus.hangar.localhost' })).status, 200)
    world.startNats()
    await world.host.add('m-after', { app: 'after' })
    await eventually(
      'a row from the new bus',
      async () => (await get(world.settings, { host: 'after.hangar.localhost' })).status === 200,
    )
  })

  test('other settings: HAProxy is replaced, and a request in flight is finished by the old one', async () => {
    const pid = haproxyPid()
    const machine = world.host.machines.get('m-after')!
    const slow = get(world.settings, { host: 'after.hangar.localhost', path: '/?held' })
    await eventually('it is in flight', () => machine.held.length > 0)
    await killed(edge)
    world.settings.slots = 65
    // An idle keep-alive connection is closed by the process that leaves: clients know that from any server.
    const load = startLoad(world, { keepAlive: false })
    edge = spawnEdge(world, socket.fd)
    await serving(edge)
    await systemClock.sleep(100)
    const { statuses, errors } = await load.stop()
    assert.deepEqual(errors, [])
    assert.deepEqual([...new Set(statuses)], [200])
    assert.notEqual(haproxyPid(), pid)
    release(machine)
    assert.equal((await slow).status, 200)
  })
})

/** Four clients, keep-alive and close, GET and POST, until stopped. */
function startLoad(world: World, { keepAlive } = { keepAlive: true }) {
  const stop = new AbortController()
  const statuses: number[] = []
  const errors: string[] = []
  const agent = new http.Agent({ keepAlive: true })
  const clients = Array.from({ length: 4 }, async (_, index) => {
    while (!stop.signal.aborted) {
      try {
        const got = await get(world.settings, {
          ...(keepAlive && index % 2 === 0 ? { agent } : {}),
          ...(index < 2 ? {} : { method: 'POST', body: 'x'.repeat(100) }),
        })
        statuses.push(got.status)
      } catch (error) {
        errors.push(String(error))
      }
      await systemClock.sleep(2)
    }
  })
  return {
    async stop() {
      stop.abort()
      await Promise.all(clients)
      agent.destroy()
      return { statuses, errors }
    },
  }
}
