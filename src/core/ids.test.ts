import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { ipv4FromNumber, ipv4ToNumber, machine6pn, network6pnPrefix } from './addresses.ts'
import { generatedName, newMachineId, newTokenSecret, newVolumeId, ulid } from './ids.ts'

test('ULIDs sort by time and have 26 characters', () => {
  assert.match(ulid(), /^[0-9A-HJKMNP-TV-Z]{26}$/)
  assert.ok(ulid(1_000_000) < ulid(1_000_001))
  assert.equal(ulid(0).slice(0, 10), '0000000000')
})

test('MCH-10, VOL-3: the shapes of ids and names', () => {
  assert.match(newMachineId(), /^[0-9a-f]{14}$/)
  assert.match(newVolumeId(), /^vol_[0-9a-z]{16}$/)
  assert.match(generatedName(), /^[a-z]+-[a-z]+-\d{4}$/)
  assert.equal(new Set(Array.from({ length: 1000 }, newTokenSecret)).size, 1000)
})

test('NET-1: a private address has eight groups, network and host where they belong', () => {
  assert.equal(machine6pn(0x18, 0x0a7b007d, 0xf066b83b), 'fdaa:0:18:a7b:7d:f066:b83b:2')
  assert.equal(network6pnPrefix(0x18), 'fdaa:0:18::/48')
  const word = fc.integer({ min: 0, max: 0xffffffff })
  fc.assert(
    fc.property(word, word, word, (network, host, machine) => {
      const groups = machine6pn(network, host, machine).split(':')
      assert.equal(groups.length, 8)
      assert.equal(groups[0], 'fdaa')
      assert.equal(
        Number.parseInt(groups[1] ?? '', 16) * 0x10000 + Number.parseInt(groups[2] ?? '', 16),
        network,
      )
      assert.equal(
        Number.parseInt(groups[3] ?? '', 16) * 0x10000 + Number.parseInt(groups[4] ?? '', 16),
        host,
      )
    }),
  )
})

test('IPv4 numbers go both ways', () => {
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 0xffffffff }), (n) => {
      assert.equal(ipv4ToNumber(ipv4FromNumber(n)), n)
    }),
  )
})
