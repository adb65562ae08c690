import assert from 'node:assert/strict'
import { test } from 'node:test'
import { openSlots } from './slots.ts'

const forever = new AbortController().signal
const settled = async (promise: Promise<unknown>) =>
  Promise.race([promise.then(() => true), new Promise((r) => setImmediate(() => r(false)))])

test('one build of an app at a time, a bounded number at once, and nobody behind a busy app waits for it', async () => {
  const slots = openSlots(2)
  const freeA = await slots.acquire('a', forever)
  const secondA = slots.acquire('a', forever)
  const b = slots.acquire('b', forever)
  assert.equal(await settled(b), true, 'b goes past the waiting second build of a')
  assert.equal(await settled(secondA), false)
  const c = slots.acquire('c', forever)
  assert.equal(await settled(c), false, 'both places are taken')
  freeA()
  assert.equal(await settled(secondA), true, 'first come, first served')
  assert.equal(await settled(c), false)
  ;(await b)()
  assert.equal(await settled(c), true)
})

test('one that stops waiting leaves its place in the line', async () => {
  const slots = openSlots(1)
  const free = await slots.acquire('a', forever)
  const gone = new AbortController()
  const waiting = slots.acquire('b', gone.signal)
  gone.abort(new Error('went away'))
  await assert.rejects(waiting, /went away/)
  free()
  assert.equal(await settled(slots.acquire('c', forever)), true)
})
