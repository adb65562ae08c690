import assert from 'node:assert/strict'
import { test } from 'node:test'
import { decideRestart } from './restart-policy.ts'

const crash = { exitCode: 1, oomKilled: false }
const clean = { exitCode: 0, oomKilled: false }

test('on-failure is the default: a clean exit rests, a crash, a signal and an OOM kill restart', () => {
  assert.equal(decideRestart({}, clean, [], 0, 0).restart, false)
  assert.equal(decideRestart({}, crash, [], 0, 0).restart, true)
  assert.equal(
    decideRestart({}, { exitCode: 0, signal: 9, oomKilled: false }, [], 0, 0).restart,
    true,
  )
  assert.equal(decideRestart({}, { exitCode: 0, oomKilled: true }, [], 0, 0).restart, true)
})

test('no and always', () => {
  assert.equal(decideRestart({ restart: { policy: 'no' } }, crash, [], 0, 0).restart, false)
  assert.equal(decideRestart({ restart: { policy: 'always' } }, clean, [], 0, 0).restart, true)
  const many = Array.from({ length: 50 }, (_, i) => 1_000_000 + i)
  assert.equal(
    decideRestart({ restart: { policy: 'always' } }, crash, many, 1_000_100, 0).restart,
    true,
  )
})

test('ten retries fit in the five-minute window with the worst jitter, the eleventh rests', () => {
  let history: number[] = []
  let now = 1_000_000
  for (let i = 0; i < 10; i++) {
    const decision = decideRestart({}, crash, history, now, 0.999)
    assert.equal(decision.restart, true, `retry ${i + 1}`)
    history = decision.history
    now += decision.delayMs
  }
  assert.ok(now - 1_000_000 < 5 * 60_000)
  assert.equal(decideRestart({}, crash, history, now, 0).restart, false)
  assert.equal(decideRestart({}, crash, history, now + 6 * 60_000, 0).restart, true)
})

test('the first restart is immediate, then it backs off with jitter around the base', () => {
  assert.equal(decideRestart({}, crash, [], 1000, 0.5).delayMs, 0)
  assert.equal(decideRestart({}, crash, [1], 1000, 0.5).delayMs, 500)
  assert.equal(decideRestart({}, crash, [1, 2, 3], 1000, 0).delayMs, 1500)
})

test('max_retries is honoured, zero too', () => {
  assert.equal(decideRestart({ restart: { max_retries: 0 } }, crash, [], 0, 0).restart, false)
  assert.equal(decideRestart({ restart: { max_retries: 2 } }, crash, [1, 2], 3, 0).restart, false)
})
