import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { machineStates } from '#spec/machine.ts'
import type { MachineRow } from '#spec/roster.ts'
import { batchesOf, splitAnswers } from './admin.ts'
import { applyChange, emptyActual, reconcile, type Actual, type DiffOptions } from './reconcile.ts'
import { exampleRow } from '../test-support.ts'
import { forceHttps, routesOf } from './routes.ts'
import { parseStat } from './stats.ts'

const ports = [
  { port: 80, handlers: ['http' as const] },
  { port: 443, handlers: ['http' as const, 'tls' as const] },
]
const row = (changes: Partial<MachineRow>): MachineRow =>
  exampleRow({
    services: [{ protocol: 'tcp', internal_port: 8080, ports }],
    ...changes,
  })
const domain = 'hangar.localhost'

const anyRow: fc.Arbitrary<MachineRow> = fc
  .record({
    host: fc.constantFrom('h1', 'h2'),
    counter: fc.integer({ min: 1, max: 20 }),
    id: fc.constantFrom('m1', 'm2', 'm3', 'm4'),
    app: fc.constantFrom('web', 'api'),
    state: fc.constantFrom(...machineStates),
    ip4: fc.constantFrom('10.0.0.2', '10.0.0.3'),
    ready: fc.boolean(),
    cordoned: fc.boolean(),
    changed_at: fc.integer({ min: 1, max: 5 }),
    services: fc.subarray(
      [
        { protocol: 'tcp' as const, internal_port: 8080, ports },
        { protocol: 'tcp' as const, internal_port: 9000, ports: [ports[0]!] },
        {
          protocol: 'tcp' as const,
          internal_port: 7000,
          ports: [{ ...ports[0]!, force_https: true }],
          concurrency: { soft_limit: 5, hard_limit: 10 },
        },
        { protocol: 'udp' as const, internal_port: 53, ports: [{ port: 53 }] },
      ],
      { minLength: 0 },
    ),
  })
  .map((changes) => row(changes))
/** A host gives each counter to one row only, so two rows with the same host and counter are the same row. */
const rowsOfOneWorld = fc.uniqueArray(anyRow, {
  maxLength: 12,
  selector: (r) => `${r.id} ${r.host === 'h1' ? r.counter : `${r.changed_at}/${r.counter}`}`,
})

test('routes do not depend on the order of the rows, nor on repetition', () => {
  fc.assert(
    fc.property(
      // One host: across two, a machine's newest row is told by time alone and ties are no order.
      rowsOfOneWorld
        .map((rows) => rows.map((r) => ({ ...r, host: 'h1' })))
        .map((rows) => {
          const seen = new Map(rows.map((r) => [`${r.id} ${r.counter}`, r]))
          return [...seen.values()]
        }),
      fc.infiniteStream(fc.nat()),
      (rows, chance) => {
        const random = chance[Symbol.iterator]()
        const shuffled = [...rows, ...rows.slice(0, 3)]
          .map((r) => [random.next().value as number, r] as const)
          .sort((a, b) => a[0] - b[0])
          .map(([, r]) => r)
        assert.deepEqual(routesOf(shuffled, { domain }), routesOf(rows, { domain }))
      },
    ),
  )
})

function optionsFor(actual: Actual, names: { next: number }): DiffOptions {
  const slots = Array.from({ length: 16 }, (_, i) => `slot${i}`)
  return {
    freeSlots: slots.filter((slot) => !actual.owners.has(slot) && !actual.servers.has(slot)),
    accepts: () => true,
    newName: (machine) => `${machine}.${names.next++}`,
  }
}

test('a difference applied leaves none, whatever was there before; no server name comes twice', () => {
  fc.assert(
    fc.property(fc.array(rowsOfOneWorld, { minLength: 1, maxLength: 4 }), (worlds) => {
      const actual = emptyActual()
      const names = { next: 1 }
      const given = new Set<string>()
      for (const rows of worlds) {
        const routes = routesOf(rows, { domain })
        for (const change of reconcile(routes, actual, optionsFor(actual, names)).changes) {
          if (change.do === 'add') {
            assert.ok(!given.has(change.server.name))
            given.add(change.server.name)
          }
          applyChange(actual, change)
        }
        const { changes } = reconcile(routes, actual, optionsFor(actual, names))
        assert.deepEqual(changes, [])
        for (const [key, pool] of routes.pools) {
          const slot = [...actual.owners].find(([, owner]) => owner === key)?.[0] ?? ''
          const up = (actual.servers.get(slot) ?? []).filter((s) => s.state === 'up')
          const usable = [...pool.members.values()].filter((m) => m.usable)
          assert.deepEqual(up.map((s) => s.machine).sort(), usable.map((m) => m.row.id).sort())
        }
        // What leaves is idle at once in this world.
        for (const [slot, servers] of actual.servers) {
          const left = servers.filter((s) => s.state !== 'leaving')
          if (left.length > 0) actual.servers.set(slot, left)
          else actual.servers.delete(slot)
        }
      }
    }),
  )
})

test('one pool when 80 and 443 lead to the same service, two when they do not', () => {
  assert.deepEqual([...routesOf([row({})], { domain }).pools.keys()], ['web'])
  const services = [
    { protocol: 'tcp' as const, internal_port: 8080, ports: [ports[0]!] },
    { protocol: 'tcp' as const, internal_port: 8443, ports: [ports[1]!] },
  ]
  const routes = routesOf([row({ services })], { domain })
  assert.equal(routes.http.get('web.hangar.localhost'), 'web:80')
  assert.equal(routes.https.get('web.hangar.localhost'), 'web')
  assert.equal(routes.pools.get('web')?.members.get('m1')?.internalPort, 8443)
  assert.equal(routes.pools.get('web:80')?.members.get('m1')?.internalPort, 8080)
})

test('force_https routes plain requests to the redirect; other ports are named as not carried', () => {
  const services = [
    {
      protocol: 'tcp' as const,
      internal_port: 8080,
      ports: [{ ...ports[0]!, force_https: true }, ports[1]!, { port: 5432, handlers: [] }],
    },
  ]
  const routes = routesOf([row({ services })], { domain })
  assert.equal(routes.http.get('web.hangar.localhost'), forceHttps)
  assert.deepEqual(routes.unsupported, ['web: port 5432 (tcp, handlers none)'])
})

test('a changed hard limit or address is a new server; a soft limit is only a weight', () => {
  const actual = emptyActual()
  const names = { next: 1 }
  const tell = (changes: Partial<MachineRow>) => {
    const diff = reconcile(routesOf([row(changes)], { domain }), actual, optionsFor(actual, names))
    for (const change of diff.changes) applyChange(actual, change)
    return diff.changes.map((change) => change.do).join()
  }
  const limited = (concurrency: { soft_limit: number; hard_limit?: number }) => ({
    services: [{ protocol: 'tcp' as const, internal_port: 8080, ports, concurrency }],
  })
  assert.equal(tell({}), 'own,add,route,route')
  assert.equal(tell(limited({ soft_limit: 5 })), 'weigh')
  assert.equal(tell(limited({ soft_limit: 5, hard_limit: 9 })), 'add,leave')
  assert.equal(tell({ ...limited({ soft_limit: 5, hard_limit: 9 }), ip4: '10.0.0.9' }), 'add,leave')
})

test('answers of a batch are told apart, empty ones too', () => {
  assert.deepEqual(splitAnswers('\n\nNew server registered.\n\n\na b\nc d\n\n', 5), [
    '',
    '',
    'New server registered.',
    '',
    'a b\nc d',
  ])
  assert.deepEqual(splitAnswers('', 2), ['', ''])
})

test('batches keep the order and stay small', () => {
  fc.assert(
    fc.property(fc.array(fc.string({ maxLength: 4_000 }), { maxLength: 40 }), (commands) => {
      const batches = [...batchesOf(commands)]
      assert.deepEqual(batches.flat(), commands)
      for (const batch of batches) assert.ok(batch.length === 1 || batch.join(';').length <= 8_192)
    }),
  )
})

test('reads counters, past cells with commas in quotes', () => {
  const text =
    '# pxname,svname,qcur,scur,slim,stot,status,weight,last_chk,addr,uweight,\n' +
    'slot1,waker,0,1,,7,no check,1,,unix,1,\n' +
    'slot1,m1.a,0,2,5,9,DOWN,20,"Detected 1, last: L4",127.0.0.1:80,30,\n' +
    'slot1,BACKEND,3,4,200,16,UP,20,,,20,\n'
  const pool = parseStat(text)
  assert.equal(pool.queued.get('slot1'), 3)
  assert.equal(pool.inFlight.get('slot1'), 4)
  assert.deepEqual(pool.servers[1], {
    slot: 'slot1',
    server: 'm1.a',
    status: 'down',
    address: '127.0.0.1:80',
    weight: 30,
    sessions: 2,
    queued: 0,
    requests: 9,
    maxconn: 5,
  })
})
