import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { afterDeath, crashLoopAfter, steadyMs, type Deaths } from './restart-policy.ts'

test('the first death costs no wait, and each quick one after it costs more, up to a limit', () => {
  let deaths: Deaths = { count: 0 }
  const delays: number[] = []
  for (let i = 0; i < crashLoopAfter + 2; i++) {
    const next = afterDeath(deaths, 10)
    deaths = next.deaths
    delays.push(next.delayMs)
    assert.equal(next.crashLoop, i + 1 >= crashLoopAfter)
  }
  assert.equal(delays[0], 0)
  assert.deepEqual(
    delays,
    delays.toSorted((a, b) => a - b),
  )
  assert.equal(delays.at(-1), 60_000)
})

test('a life that lasted forgives what was before, whatever it was', () => {
  fc.assert(
    fc.property(fc.nat(1_000), fc.integer({ min: steadyMs, max: 1e9 }), (count, livedMs) => {
      assert.deepEqual(afterDeath({ count }, livedMs), {
        deaths: { count: 1 },
        delayMs: 0,
        crashLoop: false,
      })
    }),
  )
})
