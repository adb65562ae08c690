import assert from 'node:assert/strict'
import { test } from 'node:test'
import { humanBytes, relativeTime } from './age.ts'
import { tableLines } from './table.ts'

test('columns stand under upper-case headers, as wide as their widest cell', () => {
  const lines = tableLines(
    ['Name', 'State'],
    [
      ['a-long-name', 'started'],
      ['b', ''],
    ],
  )
  assert.deepEqual(lines, ['NAME         STATE', 'a-long-name  started', 'b'])
})

test('a wide or coloured cell keeps the columns straight', () => {
  const lines = tableLines(
    [],
    [
      ['日本', 'x'],
      ['\u001b[31mred\u001b[39m', 'y'],
    ],
  )
  assert.deepEqual(lines, ['日本  x', '\u001b[31mred\u001b[39m   y'])
})

test('a cell can neither break its row nor move the cursor', () => {
  assert.deepEqual(tableLines([], [['one\ntwo\r\tthree']]), ['one two three'])
})

test('ages are those of flyctl', () => {
  const now = Date.parse('2026-03-04T05:06:07Z')
  const ago = (seconds: number) => relativeTime(now - seconds * 1000, now)
  assert.equal(ago(0.5), 'just now')
  assert.equal(ago(59), '59s ago')
  assert.equal(ago(184), '3m4s ago')
  assert.equal(ago(5 * 3600 + 6 * 60), '5h6m ago')
  assert.equal(ago(86_400), 'Mar 3 2026 05:06')
  assert.equal(relativeTime('nonsense', now), '')
})

test('bytes have a unit', () => {
  assert.equal(humanBytes(512), '512 B')
  assert.equal(humanBytes(1200), '1.2 kB')
  assert.equal(humanBytes(34_000_000), '34 MB')
})
