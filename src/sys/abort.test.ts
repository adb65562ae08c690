import assert from 'node:assert/strict'
import { test } from 'node:test'
import { deadline, unlessAborted } from './abort.ts'

test('work is waited for until its deadline, and not longer', async () => {
  const { signal, clear } = deadline(20, () => new Error('too late'))
  assert.equal(await unlessAborted(signal, Promise.resolve('done')), 'done')
  await assert.rejects(unlessAborted(signal, Promise.reject(new Error('its own'))), /its own/)
  await assert.rejects(unlessAborted(signal, new Promise(() => {})), /too late/)
  await assert.rejects(unlessAborted(signal, new Promise(() => {})), /too late/, 'at once')
  clear()
})

test('whoever comes first gives the reason', async () => {
  const other = new AbortController()
  const { signal, clear } = deadline(60_000, () => new Error('too late'), [other.signal])
  const waiting = unlessAborted(signal, new Promise(() => {}))
  other.abort(new Error('not wanted'))
  await assert.rejects(waiting, /not wanted/)
  clear()
})
