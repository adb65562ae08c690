import assert from 'node:assert/strict'
import { test } from 'node:test'
import { moment } from './guest-moment.ts'

test('a time that a guest could not have meant is now', () => {
  const near = Date.now() - 60_000
  assert.equal(moment(near), near)
  for (const far of [0, 1.8e19, near - 48 * 3_600_000]) {
    assert.ok(Math.abs(moment(far) - Date.now()) < 5_000)
  }
})
