import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { chmodSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import { hangar } from '../test-support.ts'

function folder(t: TestContext): string {
  const dir = mkdtempSync(join(tmpdir(), "hangar-wrap it's-"))
  t.after(() => rmSync(dir, { recursive: true, force: true }))
  writeFileSync(join(dir, 'token'), 'fo1_kept\n')
  writeFileSync(
    join(dir, 'flyctl'),
    '#!/bin/sh\nenv\nfor word in "$@"; do echo "word=$word"; done\n',
  )
  chmodSync(join(dir, 'flyctl'), 0o755)
  return dir
}

const runEmptied = (file: string, args: string[], env: Record<string, string> = {}) =>
  execFileSync(file, args, { env, encoding: 'utf8' }).split('\n')

test('the wrapper brings its whole environment, the token of the cloud, and the words as they are', async (t) => {
  const dir = folder(t)
  const file = join(dir, 'wrapper')
  const env = { HANGAR_API: 'http://127.0.0.1:4999', HANGAR_HOME: dir }
  const made = await hangar(['flyctl-wrapper', file, '--flyctl', join(dir, 'flyctl')], { env })
  assert.equal(made.code, 0, made.err)
  assert.equal(statSync(file).mode & 0o777, 0o755)
  const seen = runEmptied(file, ['deploy', 'a b', '$HOME'])
  for (const line of [
    'FLY_API_BASE_URL=http://127.0.0.1:4999',
    'FLY_FLAPS_BASE_URL=http://127.0.0.1:4999',
    'FLY_UIEX_BASE_URL=http://127.0.0.1:4999',
    'FLY_TRACE_COLLECTOR_URL=127.0.0.1',
    'FLY_ACCESS_TOKEN=fo1_kept',
    'word=a b',
    'word=$HOME',
  ]) {
    assert.ok(seen.includes(line), `${line} in ${seen.join('\n')}`)
  }
  const own = runEmptied(file, [], { FLY_ACCESS_TOKEN: 'mine', PATH: '/bin' })
  assert.ok(own.includes('FLY_ACCESS_TOKEN=mine'))
  assert.ok(own.includes('PATH=/bin'))
})

test('the wrapper finds flyctl in PATH, and never wraps itself', async (t) => {
  const dir = folder(t)
  const env = { HANGAR_API: 'http://127.0.0.1:4999', HANGAR_HOME: dir, PATH: dir }
  assert.equal((await hangar(['flyctl-wrapper', join(dir, 'w')], { env })).code, 0)
  assert.ok(runEmptied(join(dir, 'w'), ['x']).includes('word=x'))
  const self = await hangar(
    ['flyctl-wrapper', join(dir, 'flyctl'), '--flyctl', join(dir, 'flyctl')],
    { env },
  )
  assert.equal(self.code, 1)
  const none = await hangar(['flyctl-wrapper', join(dir, 'w2')], {
    env: { ...env, PATH: '/nowhere' },
  })
  assert.equal(none.code, 1)
  assert.match(none.err, /no flyctl in PATH/)
})
