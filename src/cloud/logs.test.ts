import assert from 'node:assert/strict'
import { appendFileSync, closeSync, mkdirSync, openSync, readFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { trimLogs } from './logs.ts'
import { removeHome, temporaryHome } from './test-support.ts'

test('the logs of parts and of HAProxy stay below their limit while they are written', (t) => {
  const home = temporaryHome()
  t.after(() => removeHome(home))
  const edge = join(home.data('edges'), 'ord1-abcd')
  mkdirSync(edge)
  const files = [home.log('nats'), join(edge, 'haproxy.log')]
  for (const file of files) {
    const writer = openSync(file, 'a')
    writeSync(writer, 'old\n'.repeat(100))
    trimLogs(home, 100)
    writeSync(writer, 'new\n')
    closeSync(writer)
    assert.equal(readFileSync(file, 'utf8'), 'new\n')
    assert.equal(readFileSync(`${file}.1`, 'utf8').length, 400)
  }
  const small = join(edge, 'small.log')
  appendFileSync(small, 'kept\n')
  trimLogs(home, 100)
  assert.equal(readFileSync(small, 'utf8'), 'kept\n')
})
