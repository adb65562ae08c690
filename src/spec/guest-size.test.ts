import assert from 'node:assert/strict'
import { test } from 'node:test'
import { presets, resolveGuest } from './guest-size.ts'

test('MCH-61: the default is one shared CPU with 256 MB', () => {
  assert.deepEqual(resolveGuest({}), { cpus: 1, cpu_kind: 'shared', memory_mb: 256 })
})

test('MCH-61: presets and explicit fields', () => {
  assert.equal(presets.size, 14)
  assert.deepEqual(resolveGuest({ size: 'performance-2x' }), {
    cpus: 2,
    cpu_kind: 'performance',
    memory_mb: 4096,
  })
  assert.equal(resolveGuest({ size: 'shared-cpu-1x', guest: { memory_mb: 1024 } }).memory_mb, 1024)
  assert.equal(resolveGuest({ guest: { cpus: 4, cpu_kind: 'shared' } }).memory_mb, 1024)
  assert.equal(
    resolveGuest({ guest: { cpus: 1, kernel_args: ['quiet'] } })['kernel_args']?.[0],
    'quiet',
  )
})

test('MCH-60: memory out of range or step is refused with the limits named', () => {
  assert.throws(() => resolveGuest({ guest: { memory_mb: 4096 } }), /takes 256 to 2048 MB/)
  assert.throws(() => resolveGuest({ guest: { memory_mb: 300 } }), /steps of 256 MB/)
  assert.throws(() => resolveGuest({ guest: { cpus: 3 } }), /has 1, 2, 4, 6, 8 CPUs, not 3/)
  assert.throws(() => resolveGuest({ size: 'huge-9x' }), /unknown machine size "huge-9x"/)
})
