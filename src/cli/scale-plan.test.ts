import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import type { Machine } from '#spec/machine.ts'
import { parseCounts, regionChanges, surplus } from './scale-plan.ts'
import { parseSecrets } from './secrets-input.ts'
import { testMachine } from './test-support.ts'

test('counts: a number, a change, groups', () => {
  assert.deepEqual([...parseCounts(['3'], 'app')], [['app', { count: 3, relative: false }]])
  assert.deepEqual([...parseCounts(['+2'], 'app')], [['app', { count: 2, relative: true }]])
  assert.deepEqual(
    [...parseCounts(['web=1', 'worker=-1'], 'app')],
    [
      ['web', { count: 1, relative: false }],
      ['worker', { count: -1, relative: true }],
    ],
  )
  for (const wrong of [['x'], ['web='], ['=3'], ['3', '4'], ['web=1.5']]) {
    assert.throws(() => parseCounts(wrong, 'app'), /is no count/)
  }
})

const changesOf = (
  expected: number,
  current: Record<string, number>,
  regions: string[] = [],
  maxPerRegion?: number,
) =>
  Object.fromEntries(
    regionChanges({ expected, current: new Map(Object.entries(current)), regions, maxPerRegion }),
  )

test('growth is even over the regions, loss begins at the last', () => {
  assert.deepEqual(changesOf(3, { ord: 1 }), { ord: 2 })
  assert.deepEqual(changesOf(5, { ord: 1, ams: 1 }, ['ord', 'ams']), { ord: 2, ams: 1 })
  assert.deepEqual(changesOf(1, { ord: 2, ams: 2 }, ['ord', 'ams']), { ord: -1, ams: -2 })
  assert.deepEqual(changesOf(2, { ord: 2 }), {})
  assert.deepEqual(changesOf(0, { ord: 2 }), { ord: -2 })
  assert.deepEqual(changesOf(4, { ord: 4, ams: 0 }, ['ord', 'ams'], 2), { ord: -2, ams: 2 })
  assert.throws(() => changesOf(5, { ord: 1 }, ['ord'], 2), /fewer than the expected total/)
})

test('whatever there was, the plan ends at the count asked for and within the most per region', () => {
  const regions = ['ord', 'ams', 'nrt']
  const counts = fc.record({ ord: fc.nat(5), ams: fc.nat(5), nrt: fc.nat(5) })
  fc.assert(
    fc.property(counts, fc.nat(12), fc.integer({ min: 4, max: 8 }), (current, expected, most) => {
      const changes = changesOf(expected, current, regions, most)
      const after = regions.map(
        (region) => (current[region as 'ord'] ?? 0) + (changes[region] ?? 0),
      )
      assert.equal(
        after.reduce((sum, count) => sum + count, 0),
        expected,
      )
      assert.ok(after.every((count) => count >= 0 && count <= most))
    }),
  )
})

test('the surplus is what does not run, then the newest', () => {
  const machine = (id: string, state: string, created_at: string) =>
    testMachine(id, { state, created_at }) as unknown as Machine
  const machines = [
    machine('old', 'started', '2026-01-01'),
    machine('new', 'started', '2026-01-03'),
    machine('asleep', 'stopped', '2026-01-02'),
  ]
  assert.deepEqual(
    surplus(machines, 2).map(({ id }) => id),
    ['asleep', 'new'],
  )
})

test('secrets from lines: comments, quotes, several lines', () => {
  const text = [
    '# a comment',
    '',
    'PLAIN=a=b',
    'SPACED = value # and a comment',
    'QUOTED="a # b"',
    "SINGLE='x'",
    'EMPTY=',
    'LONG="""first',
    'second',
    'third"""',
    'SHORT="""one"""',
  ].join('\n')
  assert.deepEqual(parseSecrets(text), {
    PLAIN: 'a=b',
    SPACED: 'value',
    QUOTED: 'a # b',
    SINGLE: 'x',
    EMPTY: '',
    LONG: 'first\nsecond\nthird',
    SHORT: 'one',
  })
  assert.throws(() => parseSecrets('no pair'), /NAME=VALUE/)
  assert.throws(() => parseSecrets('A="""open'), /never closed/)
  assert.throws(
    () => parseSecrets('hunter2'),
    (error: Error) => !error.message.includes('hunter2'),
    'a line that may be a secret is not repeated',
  )
})
