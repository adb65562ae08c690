import assert from 'node:assert/strict'
import { test } from 'node:test'
import * as fc from 'fast-check'
import type { HostRow } from '#spec/roster.ts'
import { hostStaleMs, place, sharedPerCpu, type Demand } from './index.ts'

const now = 1_000_000

function host(id: string, region: string, over: Partial<HostRow> = {}): HostRow {
  return {
    v: 1,
    host: id,
    number: 1,
    region,
    api: 'unix:/x',
    counter: 1,
    at: now - 500,
    capacity: { cpus: 4, memory_mb: 4096 },
    used: { cpus: 0, memory_mb: 0, machines: 0 },
    ...over,
  }
}

const small: Demand['guest'] = { cpus: 1, cpu_kind: 'shared', memory_mb: 256 }
const ask = (hosts: HostRow[], demand: Partial<Demand>) =>
  place({ hosts, now, demand: { regions: [], guest: small, count: 1, ...demand } })

test('MCH-90: machines of one app are spread over hosts', () => {
  const hosts = [host('a', 'ord'), host('b', 'ord')]
  assert.deepEqual(ask(hosts, { count: 2 }), { hosts: ['a', 'b'] })
  assert.deepEqual(ask(hosts, { nearHosts: ['a'] }), { hosts: ['b'] })
  assert.deepEqual(ask(hosts, { nearHosts: ['a', 'b', 'b'] }), { hosts: ['a'] })
})

test('MCH-22: the first preference with room wins, and a stale or full one is passed over', () => {
  const full = host('a', 'fra', { used: { cpus: 1, memory_mb: 4096, machines: 9 } })
  const hosts = [full, host('b', 'nrt'), host('c', 'ord')]
  assert.deepEqual(ask(hosts, { regions: ['fra', 'nrt', 'ord'] }), { hosts: ['b'] })
})

test('REG-2: aliases stand for areas', () => {
  const hosts = [host('a', 'fra'), host('b', 'yyz'), host('c', 'sjc'), host('d', 'nrt')]
  assert.deepEqual(ask(hosts, { regions: ['us'] }), { hosts: ['c'] })
  assert.deepEqual(ask(hosts, { regions: ['usa'] }), { hosts: ['c'] })
  assert.deepEqual(ask(hosts, { regions: ['na'], count: 2 }), { hosts: ['b', 'c'] })
  assert.deepEqual(ask(hosts, { regions: ['eu'] }), { hosts: ['a'] })
  assert.deepEqual(ask(hosts, { regions: ['apac'] }), { hosts: ['d'] })
  assert.deepEqual(ask(hosts, { regions: ['[gru]', 'any'] }), { hosts: ['a'] })
})

test('MCH-3: the text of a lack of room is the one clients look for', () => {
  for (const result of [
    ask([], {}),
    ask([host('a', 'ord')], { regions: ['gru'] }),
    ask([host('a', 'ord')], { guest: { ...small, memory_mb: 65_536 } }),
    ask([host('a', 'ord')], { pinnedHost: 'z' }),
    ask([host('a', 'ord', { at: now - hostStaleMs - 1 })], {}),
  ]) {
    assert.ok('error' in result)
    assert.match(result.error, /^could not reserve resource for machine: /)
  }
})

test('MCH-24: a pinned machine goes to its host or nowhere', () => {
  const hosts = [host('a', 'ord'), host('b', 'ord')]
  assert.deepEqual(ask(hosts, { pinnedHost: 'b', nearHosts: ['b'] }), { hosts: ['b'] })
  const full = host('b', 'ord', { used: { cpus: 5, memory_mb: 0, machines: 65 } })
  assert.match(
    (ask([hosts[0] as HostRow, full], { pinnedHost: 'b' }) as { error: string }).error,
    /host b, which holds its volume, has no room for 1 machine of 1 shared CPU and 256 MB: b has \d+ of 4 CPUs and \d+ MB free; ask for less/,
  )
})

test('MCH-62: a performance CPU takes a whole one', () => {
  const guest = { cpus: 2, cpu_kind: 'performance', memory_mb: 4096 } as const
  assert.deepEqual(ask([host('a', 'ord', { capacity: { cpus: 2, memory_mb: 9000 } })], { guest }), {
    hosts: ['a'],
  })
  assert.ok(
    'error' in ask([host('a', 'ord', { capacity: { cpus: 1, memory_mb: 9000 } })], { guest }),
  )
})

const arbitraryHost = fc.record({
  region: fc.constantFrom('ord', 'fra', 'nrt'),
  age: fc.integer({ min: -2000, max: 2 * hostStaleMs }),
  cpus: fc.integer({ min: 1, max: 8 }),
  memory: fc.integer({ min: 256, max: 8192 }),
  usedCpus: fc.integer({ min: 0, max: 10 }),
  usedMemory: fc.integer({ min: 0, max: 9_000 }),
})

test('no placement overfills a host, uses a stale one, or is uneven without need', () => {
  fc.assert(
    fc.property(
      fc.array(arbitraryHost, { maxLength: 8 }),
      fc.subarray(['ord', 'fra', 'nrt', 'eu', 'any', 'gru']),
      fc.integer({ min: 0, max: 12 }),
      fc.constantFrom(256, 512, 2048),
      (made, regions, count, memory_mb) => {
        const hosts = made.map((one, index) =>
          host(`h${index}`, one.region, {
            at: now - one.age,
            capacity: { cpus: one.cpus, memory_mb: one.memory },
            used: { cpus: one.usedCpus, memory_mb: one.usedMemory, machines: 0 },
          }),
        )
        const guest = { ...small, memory_mb }
        const result = ask(hosts, { regions, count, guest })
        if ('error' in result) return
        assert.equal(result.hosts.length, count)
        for (const row of hosts) {
          const mine: number = result.hosts.filter((id) => id === row.host).length
          if (mine === 0) continue
          assert.ok(now - row.at <= hostStaleMs)
          assert.ok(row.used.cpus - 1 + mine / sharedPerCpu <= row.capacity.cpus)
          assert.ok(row.used.memory_mb + mine * memory_mb <= row.capacity.memory_mb)
        }
        const regionsUsed = new Set(
          result.hosts.map((id) => hosts.find((row) => row.host === id)?.region),
        )
        if (!regions.includes('any') && regions.length > 0) assert.ok(regionsUsed.size <= 1)
      },
    ),
  )
})
