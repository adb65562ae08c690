import assert from 'node:assert/strict'
import net from 'node:net'
import { once } from 'node:events'
import { test } from 'node:test'
import fc from 'fast-check'
import { cloudConfigSchema } from '#spec/settings.ts'
import { chooseState, freeBlock } from './choose.ts'
import { grows, regionsOfPlaces, requireAllPlaces } from './shape.ts'
import { cloudStateSchema, type CloudState } from './state.ts'

// Far from the usual ports, so that clouds of other tests do not meet these.
const ports = { http: 23_080, https: 23_443, api: 23_280, registry: 23_285, nats: 23_222 }
const config = (more: object = {}) => cloudConfigSchema.parse({ ports, ...more })

const choose = (options: { more?: object; kept?: CloudState; neighbours?: CloudState[] } = {}) =>
  chooseState({
    config: config(options.more),
    overrides: {},
    kept: options.kept,
    neighbours: options.neighbours ?? [],
    mayMovePorts: true,
  })

async function occupy(port: number): Promise<{ free(): void }> {
  const server = net.createServer()
  server.listen(port, '127.0.0.1')
  await once(server, 'listening')
  return { free: () => server.close() }
}

test('free ports are taken as wanted, and the choice is whole and valid', async () => {
  const { state, moved } = await choose()
  assert.deepEqual(state.ports, ports)
  assert.deepEqual(moved, [])
  assert.deepEqual(cloudStateSchema.parse(state), state)
  assert.equal(state.places.length, 1)
  assert.equal(state.places[0]?.http_port, ports.http)
})

test('a taken port is replaced by a free one, which is kept even when the first is free again', async () => {
  const taken = await occupy(ports.http)
  const { state, moved } = await choose()
  taken.free()
  assert.notEqual(state.ports.http, ports.http)
  assert.match(moved[0] ?? '', /port 23080 is taken/)
  const again = await choose({ kept: state })
  assert.deepEqual(again.state.ports, state.ports)
  assert.deepEqual(again.state.places, state.places)
})

test('another wish in the configuration chooses anew', async () => {
  const { state } = await choose()
  const again = await choose({ kept: state, more: { ports: { ...ports, http: 23_090 } } })
  assert.equal(again.state.ports.http, 23_090)
  assert.equal(again.state.places[0]?.http_port, 23_090)
})

test("the registry's port never moves: it is in the names of images", async () => {
  const { state } = await choose()
  const taken = await occupy(state.ports.registry)
  try {
    await assert.rejects(choose({ kept: state }), /registry.*cannot move: stop that program/)
  } finally {
    taken.free()
  }
})

test('clouds of one machine share nothing, though the first is down', async () => {
  const first = (await choose({ more: { regions: ['ord', 'fra'], hosts_per_region: 2 } })).state
  const second = (await choose({ neighbours: [first] })).state
  const all = [first, second]
  const numbers = all.flatMap((s) => s.places.map((p) => p.number))
  const blocks = all.flatMap((s) => s.places.map((p) => p.ipv4_block))
  const used = all.flatMap((s) => [
    ...new Set([
      ...Object.values(s.ports),
      ...s.places.flatMap((p) => [p.http_port, p.https_port]),
    ]),
  ])
  for (const list of [numbers, blocks, used])
    assert.equal(new Set<number | string>(list).size, list.length)
  assert.equal(first.places.length, 4)
})

test('a cloud grows without moving what it has, in any order of the regions, and never shrinks', async () => {
  const small = (await choose()).state
  const more = { regions: ['fra', 'ord'], hosts_per_region: 2 }
  assert.equal(grows(small, config(more)), true)
  const large = (await choose({ kept: small, more })).state
  assert.deepEqual(large.places[0], small.places[0])
  assert.deepEqual(regionsOfPlaces(large.places), ['ord', 'fra'])
  assert.equal(large.places.length, 4)
  const doors = large.places.flatMap((place) => [place.http_port, place.https_port])
  assert.equal(new Set(doors).size, 8, 'each edge has ports of its own')
  assert.equal(grows(large, config(more)), false)
  requireAllPlaces(large, config(more))
  requireAllPlaces(large, config({ regions: ['ord', 'fra', 'nrt'], hosts_per_region: 3 }))
  for (const less of [{}, { regions: ['nrt'], hosts_per_region: 2 }, { regions: ['ord', 'fra'] }]) {
    assert.throws(
      () => requireAllPlaces(large, config(less)),
      /leave out \w{4}-.*Write --regions ord,fra(,nrt)? --hosts-per-region 2 or more/,
    )
  }
})

test('a block touches no interface and no other place', () => {
  const cidr = fc
    .tuple(fc.constantFrom(8, 12, 16, 20, 24), fc.integer({ min: 64, max: 255 }), fc.nat(255))
    .map(([bits, second, third]) => ({ bits, second, text: `10.${second}.${third}.1/${bits}` }))
  fc.assert(
    fc.property(fc.array(cidr, { maxLength: 20 }), (interfaces) => {
      const texts = interfaces.map((each) => each.text)
      if (interfaces.some((each) => each.bits === 8)) {
        assert.throws(() => freeBlock([], texts), /no free \/16/)
        return
      }
      const chosen = Number(freeBlock([], texts).split('.')[1])
      for (const { bits, second } of interfaces) {
        const width = bits >= 16 ? 1 : 2 ** (16 - bits)
        const from = second - (second % width)
        assert.ok(chosen < from || chosen >= from + width, `${chosen} lies in ${texts.join(' ')}`)
      }
    }),
  )
})
