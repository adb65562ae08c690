import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isFault } from '#core/fault.ts'
import type { HostRow } from '#spec/roster.ts'
import { chooseZone, type ZoneDemand } from './zone.ts'

const now = 1_000_000

const host = (id: string, options: { region?: string; freeMb?: number } = {}): HostRow => ({
  v: 1,
  host: id,
  number: 1,
  region: options.region ?? 'ord',
  api: `unix:/${id}`,
  counter: 1,
  at: now,
  capacity: { cpus: 8, memory_mb: 8_192 },
  used: { cpus: 0, memory_mb: 8_192 - (options.freeMb ?? 8_192), machines: 0 },
})

/** Where a volume `data` goes; `at` are the app's volumes, as `host` or `host:name`. */
function choose(options: {
  hosts: HostRow[]
  at?: string[]
  input?: Partial<ZoneDemand['input']>
  regions?: string[]
  sourceHost?: string
}): string {
  const volumes = (options.at ?? []).map((entry) => {
    const [host_id = '', name = 'data'] = entry.split(':')
    return { host_id, name }
  })
  const { hosts, regions = ['ord'], sourceHost } = options
  const guest = { cpus: 1, cpu_kind: 'shared' as const, memory_mb: 256 }
  const input = { name: 'data', ...options.input }
  return chooseZone({ hosts, now, regions, guest, input, volumes, sourceHost }).host
}

const refused = (text: RegExp) => (error: unknown) => {
  assert.ok(isFault(error, 'insufficient_capacity'), String(error))
  assert.match(error.message, /^could not reserve resource for volume: /)
  assert.match(error.message, text)
  return true
}

test('VOL-6: a volume goes where the app has none of its name', () => {
  const hosts = [host('a'), host('b'), host('c', { freeMb: 300 })]
  assert.equal(choose({ hosts, at: ['a'] }), 'b')
  assert.equal(choose({ hosts, at: ['a', 'b'] }), 'c', 'also to the fullest')
  // The most empty of those without one of this name, even if others of the app are there.
  assert.equal(choose({ hosts: [host('a'), host('b')], at: ['a', 'b:other', 'b:other'] }), 'b')
})

test('VOL-6: what clients send with nearly every volume does not make one host, or two, unusable', () => {
  for (const require_unique_zone of [true, null, undefined, false]) {
    const input = { require_unique_zone }
    assert.equal(choose({ hosts: [host('a')], at: ['a', 'a'], input }), 'a')
    assert.equal(choose({ hosts: [host('a'), host('b')], at: ['a', 'b', 'b'], input }), 'a')
  }
})

test('VOL-6: a host without one that is full is waited for, unless sharing is allowed', () => {
  const hosts = [host('a'), host('b', { freeMb: 10 })]
  assert.throws(
    () => choose({ hosts, at: ['a'] }),
    refused(
      /insufficient unique zones in region ord: .* full .*b has .* 10 MB free.*require_unique_zone false/,
    ),
  )
  assert.equal(choose({ hosts, at: ['a'], input: { require_unique_zone: false } }), 'a')
})

test('VOL-6: unique_zone_app_wide is strict, and counts volumes of every name', () => {
  const input = { unique_zone_app_wide: true }
  const hosts = [host('a'), host('b')]
  assert.equal(choose({ hosts, at: ['a:other'], input }), 'b')
  assert.throws(
    () => choose({ hosts, at: ['a:other', 'b:third'], input }),
    refused(/every host that is up has a volume of the app; add a host/),
  )
  const both = { ...input, require_unique_zone: false }
  assert.equal(choose({ hosts, at: ['a:other', 'b:third', 'b'], input: both }), 'a')
})

test('VOL-13: a copy goes to another host when there is one', () => {
  const input = { name: 'copy' }
  assert.equal(choose({ hosts: [host('a'), host('b')], at: ['b'], input, sourceHost: 'a' }), 'b')
  assert.equal(choose({ hosts: [host('a')], at: ['a'], input, sourceHost: 'a' }), 'a')
})

test('REG-4: the first region with a place wins, and a region without hosts is told', () => {
  const hosts = [host('a'), host('f', { region: 'fra' })]
  assert.equal(choose({ hosts, at: ['a'], regions: ['ord', 'fra'] }), 'a')
  assert.equal(choose({ hosts, at: ['a'], regions: ['any'] }), 'f')
  const input = { unique_zone_app_wide: true }
  assert.equal(choose({ hosts, at: ['a'], regions: ['ord', 'fra'], input }), 'f')
  assert.throws(
    () => choose({ hosts, regions: ['nrt'] }),
    refused(/no host is up in region nrt; regions with hosts: fra, ord/),
  )
})
