import assert from 'node:assert/strict'
import { test } from 'node:test'
import { deadline, unlessAborted, within } from './abort.ts'

test('work is waited for until its deadline, and not longer', async () => {
  const { signal, clear } = deadline(20, () => new Error('too late'))
  assert.equal(await unlessAborted(signal, Promise.resolve('done')), 'done')
  await assert.rejects(unlessAborted(signal, Promise.reject(new Error('its own'))), /its own/)
  await assert.rejects(unlessAborted(signal, new Promise(() => {})), /too late/)
  await assert.rejects(unlessAborted(signal, new Promise(() => {})), /too late/, 'at once')
  clear()
})

test('work that is given a time hears of its end, and leaves no timer', async () => {
  const reason = () => new Error('too late')
  assert.equal(await within({ ms: 60_000, reason }, async () => 'done'), 'done')
  let heard: unknown
  const hear = (signal: AbortSignal) =>
    new Promise((_, reject) => {
      signal.addEventListener('abort', () => {
        heard = signal.reason
        reject(signal.reason as Error)
      })
    })
  await assert.rejects(within({ ms: 5, reason }, hear), /too late/)
  assert.match(String(heard), /too late/)
  const others = [AbortSignal.abort(new Error('not wanted'))]
  await assert.rejects(within({ ms: 60_000, reason, others }, hear), /not wanted/)
})

test('whoever comes first gives the reason', async () => {
  const other = new AbortController()
  const { signal, clear } = deadline(60_000, () => new Error('too late'), [other.signal])
  const waiting = unlessAborted(signal, new Promise(() => {}))
  other.abort(new Error('not wanted'))
  await assert.rejects(waiting, /not wanted/)
  clear()
})
