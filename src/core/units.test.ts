import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { formatGoDuration, parseGoDuration, parseSizeMb, wireDurationMs } from './units.ts'

test('TOML-5: Go durations', () => {
  assert.equal(parseGoDuration('10s'), 10_000)
  assert.equal(parseGoDuration('1m30s'), 90_000)
  assert.equal(parseGoDuration('1.5h'), 5_400_000)
  assert.equal(parseGoDuration('250ms'), 250)
  assert.equal(parseGoDuration('-2s'), -2000)
  assert.equal(parseGoDuration('0'), 0)
  for (const bad of ['', '10', 's', '10 s', '1d', '1m30', 'ten'])
    assert.equal(parseGoDuration(bad), undefined)
})

test('TOML-5: an integer on the wire is nanoseconds', () => {
  assert.equal(wireDurationMs(15_000_000_000), 15_000)
  assert.equal(wireDurationMs('15s'), 15_000)
  assert.throws(() => wireDurationMs('soon'), { code: 'invalid' })
})

test('a formatted duration parses back to itself', () => {
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 400_000_000 }), (ms) => {
      assert.equal(Math.round(parseGoDuration(formatGoDuration(ms)) as number), ms)
    }),
  )
})

test('parsing a duration never throws', () => {
  fc.assert(fc.property(fc.string(), (text) => void parseGoDuration(text)))
})

test('TOML-6: sizes', () => {
  assert.equal(parseSizeMb(512), 512)
  assert.equal(parseSizeMb('512'), 512)
  assert.equal(parseSizeMb('512mb'), 512)
  assert.equal(parseSizeMb('1GB'), 1024)
  assert.equal(parseSizeMb('2', 'gb'), 2048)
  for (const bad of ['', 'gb', '1.5gb', '-1', '1tb']) assert.equal(parseSizeMb(bad), undefined)
})
