import assert from 'node:assert/strict'
import test from 'node:test'
import { addressingOf } from './addressing.ts'
import { droppingForwardChains } from './net-doctor.ts'

const addressing = addressingOf({
  hostId: 'ord-1',
  hostNumber: 0x10002,
  ipv4Block: '10.200.0.0/16',
})

test('addresses follow from the index', () => {
  assert.equal(addressing.gateway4, '10.200.0.1')
  assert.equal(addressing.ip4(0), '10.200.0.2')
  assert.equal(addressing.ip4(65_000), '10.200.253.234')
  assert.equal(addressing.ip6(0x18, 0), 'fdaa:0:18:1:2:0:1:2')
  assert.equal(addressing.gateway6, 'fdaa:0:0:1:2:0:0:2')
})

test('an index or a block that does not fit is refused', () => {
  assert.throws(() => addressing.ip4(65_533), /no address for machine/)
  assert.throws(() => addressing.ip4(-1), /no address/)
  for (const ipv4Block of ['10.200.0.1/16', '10.200.0.0', 'nonsense', '10.0.0.0/31']) {
    assert.throws(
      () => addressingOf({ hostId: 'a', hostNumber: 1, ipv4Block }),
      /not an IPv4 block/,
    )
  }
})

test('a link name fits the kernel and belongs to one host', () => {
  const other = addressingOf({ hostId: 'ord-2', hostNumber: 1, ipv4Block: '10.201.0.0/16' })
  const name = addressing.linkName('148e21b7f72689')
  assert.equal(name.length, 15)
  assert.ok(name.startsWith(addressing.linkPrefix))
  assert.notEqual(addressing.linkPrefix, other.linkPrefix)
})

test('the doctor sees whose chain drops what is forwarded', () => {
  const chain = { family: 'ip', table: 'filter', name: 'FORWARD', hook: 'forward', policy: 'drop' }
  const listing = {
    nftables: [{ metainfo: {} }, { chain }, { chain: { ...chain, policy: 'accept' } }],
  }
  assert.deepEqual(droppingForwardChains(listing), ['ip filter FORWARD'])
})
