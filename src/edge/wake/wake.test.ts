import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import type { MachineRow } from '#spec/roster.ts'
import { exampleRow } from '../test-support.ts'
import { routesOf } from '../proxy/routes.ts'
import { choose, chooseExtra } from './choose.ts'
import { machineToRest, type Running } from './idle.ts'

const row = (changes: Partial<MachineRow>, service: object = {}): MachineRow =>
  exampleRow({
    state: 'stopped',
    services: [
      {
        protocol: 'tcp',
        internal_port: 8080,
        autostop: 'stop',
        ports: [{ port: 80, handlers: ['http'] }],
        ...service,
      },
    ],
    ready: false,
    changed_at: 1_000,
    ...changes,
  })
const pool = (rows: MachineRow[]) => routesOf(rows, { domain: 'x' }).pools.get('web')!
const chosen = (
  rows: MachineRow[],
  options: { now?: number; failed?: string[]; refusing?: number; silent?: string } = {},
) => {
  const choice = choose(pool(rows), {
    now: options.now ?? 1_500,
    failed: new Set(options.failed),
    refusingMs: () => options.refusing,
    silent: (host) => host === options.silent,
  })
  return choice.do === 'start' ? choice.machine.id : choice.do
}

test('what a held request waits for', () => {
  assert.equal(chosen([row({})]), 'm1')
  assert.equal(chosen([row({}), row({ id: 'm2', state: 'suspended' })]), 'm2')
  assert.equal(chosen([row({}), row({ id: 'm2', state: 'starting' })]), 'wait')
  assert.equal(chosen([row({ state: 'stopped', returning: true })]), 'wait')
  assert.equal(chosen([row({ state: 'started' })]), 'wait', 'its checks do not pass yet')
  assert.equal(
    chosen([row({ state: 'stopping' })]),
    'wait',
    'it can be started once it has stopped',
  )
  assert.equal(chosen([row({ state: 'failed' })]), 'refuse')
  assert.equal(chosen([row({ cordoned: true })]), 'refuse')
  assert.equal(chosen([row({ startable: false })]), 'refuse')
  assert.equal(chosen([row({}, { autostart: false })]), 'refuse')
  assert.equal(chosen([row({})], { failed: ['m1'] }), 'refuse')
})

test('a host that says nothing is asked last, and keeps no other machine from being started', () => {
  const resting = row({ host: 'mute' })
  const arriving = row({ host: 'mute', state: 'starting' })
  const other = row({ id: 'm2', changed_at: 1_200 })
  const silent = 'mute'
  assert.equal(chosen([resting, other]), 'm1')
  assert.equal(chosen([resting, other], { silent }), 'm2')
  assert.equal(chosen([resting], { silent }), 'm1')
  assert.equal(chosen([arriving, other]), 'wait')
  assert.equal(chosen([arriving, other], { silent }), 'm2')
  assert.equal(chosen([arriving], { silent }), 'wait')
})

test('a machine that stays unready or deaf keeps no other from being started', () => {
  const other = row({ id: 'm2' })
  const unready = row({ state: 'started' })
  assert.equal(chosen([unready, other], { now: 5_000 }), 'wait')
  assert.equal(chosen([unready, other], { now: 20_000 }), 'm2')
  const deaf = row({ state: 'started', ready: true })
  assert.equal(chosen([deaf, other], { refusing: 500 }), 'wait')
  assert.equal(chosen([deaf, other], { refusing: 20_000 }), 'm2')
  assert.equal(chosen([deaf], { refusing: 20_000 }), 'wait')
})

test('one more machine: the longest at rest, and only one at a time', () => {
  const resting = [row({ id: 'm1', changed_at: 5 }), row({ id: 'm2', changed_at: 3 })]
  assert.equal(chooseExtra(pool(resting))?.id, 'm2')
  assert.equal(chooseExtra(pool([...resting, row({ id: 'm3', state: 'starting' })])), undefined)
})

const running = (load: number, changes: Partial<Running> = {}, service: object = {}): Running => ({
  row: row({ id: `m${load}`, state: 'started', ready: true }, service),
  load,
  softLimit: 10,
  quiet: true,
  settled: true,
  ...changes,
})

test('a single machine rests only when idle and quiet since the previous pass', () => {
  assert.ok(machineToRest([running(0)], 'ord'))
  assert.equal(machineToRest([running(1)], 'ord'), undefined)
  assert.equal(machineToRest([running(0, { quiet: false })], 'ord'), undefined)
})

test('the most restrictive service and min_machines_running keep machines up, in the primary region', () => {
  assert.equal(machineToRest([running(0, {}, { autostop: 'off' })], 'ord'), undefined)
  const kept = { min_machines_running: 1 }
  assert.equal(machineToRest([running(0, {}, kept)], 'ord'), undefined)
  assert.ok(machineToRest([running(0, {}, kept)], 'fra'))
  assert.ok(machineToRest([running(0, {}, kept), running(1, {}, kept)], 'ord'))
})

test('nothing rests in the pass after a start: neither the machine itself nor one beside it', () => {
  const started = running(0, { settled: false })
  assert.equal(machineToRest([started], 'ord'), undefined)
  assert.equal(machineToRest([running(0), running(1, { settled: false })], 'ord'), undefined)
  assert.ok(machineToRest([running(0), running(1)], 'ord'))
})

test('of several: one stops only while the rest are enough (PRX-41)', () => {
  fc.assert(
    fc.property(fc.array(fc.nat(20), { minLength: 2, maxLength: 8 }), (loads) => {
      const machines = loads.map((load) => running(load))
      const full = loads.filter((load) => load >= 10).length
      const resting = machineToRest(machines, 'ord')
      assert.equal(resting !== undefined, loads.length - (full + 1) >= 1)
      if (resting) assert.equal(resting.load, Math.min(...loads))
    }),
  )
})
