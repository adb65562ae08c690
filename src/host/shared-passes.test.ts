import assert from 'node:assert/strict'
import { test } from 'node:test'
import { SharedPasses } from './shared-passes.ts'

test('one pass at a time; who asks meanwhile shares the next, and one that fails keeps none from it', async () => {
  const passes = new SharedPasses()
  const gates = [0, 1, 2].map(() => Promise.withResolvers<void>())
  let begun = 0
  const pass = () => gates[begun++]?.promise ?? Promise.resolve()
  const first = passes.run('a', pass)
  await Promise.resolve()
  assert.equal(begun, 1)
  const others = [passes.run('a', pass), passes.run('a', pass)]
  assert.equal(others[0], others[1])
  await new Promise(setImmediate)
  assert.equal(begun, 1, 'not beside the first')
  gates[0]?.reject(new Error('of the first'))
  await assert.rejects(first, /of the first/)
  await new Promise(setImmediate)
  assert.equal(begun, 2)
  gates[1]?.resolve()
  await Promise.all(others)
  gates[2]?.resolve()
  await passes.run('a', pass)
  assert.equal(begun, 3)
})
