import assert from 'node:assert/strict'
import test from 'node:test'
import { parseSocketAddress } from './processes.ts'

test('addresses of sockets read as people write them', () => {
  assert.equal(parseSocketAddress('0100007F:1F90'), '127.0.0.1:8080')
  assert.equal(parseSocketAddress('00000000000000000000000000000000:0050'), '[::]:80')
  assert.equal(parseSocketAddress('00000000000000000000000001000000:0050'), '[::1]:80')
  assert.equal(
    parseSocketAddress('0000AAFD1800000000004D0002000100:01BB'),
    '[fdaa::18:4d:0:1:2]:443',
  )
})
