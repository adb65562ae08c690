import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { after, before, test } from 'node:test'
import { connect } from '@nats-io/transport-node'
import { Kvm } from '@nats-io/kv'
import { systemClock } from '#core/clock.ts'
import type { HostRow, MachineRow } from '#spec/roster.ts'
import { createLogger } from '#sys/log.ts'
import { eventually, freePort } from '#sys/test-support.ts'
import { connectRoster, type Roster } from './index.ts'

const log = createLogger('test')
log.level = 'silent'
const dir = mkdtempSync(join(tmpdir(), 'hangar-roster-'))
let port: number
let nats: ChildProcess

function startNats(): ChildProcess {
  const args = ['-js', '-sd', dir, '-a', '127.0.0.1', '-p', String(port), '--auth', 'secret']
  return spawn('nats-server', args, { stdio: 'ignore' })
}

const open = (name: string): Promise<Roster> =>
  connectRoster({ natsUrl: `nats://127.0.0.1:${port}`, key: 'secret', name, log })

const host = (): HostRow => ({
  v: 1,
  host: 'h1',
  number: 1,
  region: 'ord',
  api: 'unix:/nowhere',
  counter: 1,
  at: systemClock.now(),
  capacity: { cpus: 2, memory_mb: 1024 },
  used: { cpus: 0, memory_mb: 0, machines: 0 },
})

const row = (id: string, counter: number): MachineRow => ({
  v: 1,
  host: 'h1',
  counter,
  id,
  app: 'web',
  org: 'personal',
  network: 1,
  region: 'ord',
  primary_region: null,
  process_group: 'app',
  instance_id: 'v1',
  state: 'started',
  ip4: '10.0.0.2',
  ip6: 'fdaa:0:1:0:1:0:2:2',
  host_api: 'unix:/nowhere',
  services: [],
  ready: true,
  cordoned: false,
  startable: true,
  returning: false,
  changed_at: 0,
})

before(async () => {
  port = await freePort()
  nats = startNats()
})
after(() => {
  nats.kill('SIGKILL')
  rmSync(dir, { recursive: true, force: true })
})

test('rows spread, the highest counter wins, and a forgotten machine is heard of', async () => {
  const [writer, reader] = await Promise.all([open('writer'), open('reader')])
  const announcer = writer.announcer({ region: 'ord', host })
  const seen: number[] = []
  const gone: string[] = []
  const hosts: string[] = []
  const watcher = reader.watch({
    regions: ['ord'],
    onRow: (r) => seen.push(r.counter),
    onForget: (g) => gone.push(g.id),
    onHost: (h) => hosts.push(h.host),
  })
  await watcher.ready
  await eventually('the writer reaches the bus', () => writer.connected())
  await announcer.put(row('m1', 5))
  await announcer.put(row('m1', 4))
  await announcer.put(row('m1', 6))
  await eventually('both rows', () => seen.length === 2)
  assert.deepEqual(seen, [5, 6])
  await announcer.forget('m1')
  await eventually('forgotten', () => gone.includes('m1'))
  await eventually('heartbeat', () => hosts.includes('h1'))
  assert.equal(watcher.healthy(), true)
  watcher.close()
  await announcer.close()
  await Promise.all([writer.close(), reader.close()])
})

test('a killed bus, and a deleted bucket, are whole again from the hosts within seconds', async () => {
  const [writer, reader] = await Promise.all([open('writer'), open('reader')])
  const announcer = writer.announcer({ region: 'fra', host: () => ({ ...host(), region: 'fra' }) })
  const seen = new Map<string, number>()
  const watcher = reader.watch({
    regions: ['fra'],
    onRow: (r) => void seen.set(r.id, r.counter),
    onForget: () => {},
  })
  await eventually('the writer reaches the bus', () => writer.connected())
  await announcer.put(row('m1', 1))
  await eventually('first row', () => seen.get('m1') === 1)

  const ended = once(nats, 'exit')
  nats.kill('SIGKILL')
  await ended
  await eventually('the loss is noticed', () => !watcher.healthy())
  await announcer.put(row('m1', 2)) // Must neither throw nor be lost.
  nats = startNats()
  await eventually('the row said while the bus was down', () => seen.get('m1') === 2)

  const nc = await connect({ servers: `nats://127.0.0.1:${port}`, token: 'secret' })
  const bucket = await new Kvm(nc).open('roster_fra')
  await bucket.destroy()
  await announcer.put(row('m1', 3))
  await eventually('a row after the bucket was deleted', () => seen.get('m1') === 3)
  await nc.close()
  watcher.close()
  await announcer.close()
  await Promise.all([writer.close(), reader.close()])
})

test('a row that cannot be read is skipped and counted', async () => {
  const reader = await open('reader')
  const seen: string[] = []
  const watcher = reader.watch({
    regions: ['nrt'],
    onRow: (r) => seen.push(r.id),
    onForget: () => {},
  })
  await watcher.ready
  const nc = await connect({ servers: `nats://127.0.0.1:${port}`, token: 'secret' })
  const bucket = await new Kvm(nc).open('roster_nrt')
  await bucket.put('machine.h1.bad', '{"v":1,"host":"h1"}')
  await bucket.put('machine.h1.worse', 'not json')
  await bucket.put('machine.h1.m9', JSON.stringify(row('m9', 1)))
  await eventually('the good one', () => seen.includes('m9'))
  assert.deepEqual(seen, ['m9'])
  assert.equal(watcher.badRows(), 2)
  await nc.close()
  watcher.close()
  await reader.close()
})

test('a drain waits for every live edge, and only for live ones', async () => {
  const [edge, hostSide] = await Promise.all([open('edge'), open('host')])
  const view = hostSide.edges({ region: 'ord' })
  assert.equal(view.applied('m1', 3), true, 'with no edge there is nobody to wait for')
  const say = (sessions: number, counter: number) =>
    edge.say({ v: 1, edge: 'e1', region: 'ord', at: 0, machine: 'm1', counter, sessions })
  await eventually('connections', () => edge.connected() && hostSide.connected())
  // What is said before the other has told the bus that it listens is lost.
  await eventually('the edge is live', () => {
    say(2, 2)
    return view.live().includes('e1')
  })
  assert.equal(view.applied('m1', 3), false)
  say(1, 3)
  await eventually('applied', () => view.applied('m1', 3))
  assert.equal(view.sessions('m1'), 1)
  say(0, 3)
  await eventually('drained', () => view.sessions('m1') === 0)
  await eventually('a silent edge is not waited for', () => view.applied('m1', 99))
  view.close()
  await Promise.all([edge.close(), hostSide.close()])
})
