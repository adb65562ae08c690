import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { hangar, startApi, temporaryFolder } from '../test-support.ts'

const routes = {
  'GET /v1/apps/demo': { json: { name: 'demo', status: 'deployed', urls: [] } },
  'GET /api/v1/apps/demo/definition': { json: { app: 'demo', env: { A: '1' } } },
}

test('config save writes a file that is not there yet: by any path, for the app of the folder', async (t) => {
  const api = await startApi(routes)
  t.after(api.close)
  const cwd = temporaryFolder(t)
  const saved = join(temporaryFolder(t), 'saved.toml')
  writeFileSync(join(cwd, 'fly.toml'), "app = 'demo'\n")
  const absolute = await hangar(['config', 'save', '-c', saved], { api, cwd })
  assert.equal(absolute.code, 0, absolute.err)
  assert.match(readFileSync(saved, 'utf8'), /app = 'demo'/)

  const named = await hangar(['config', 'save', '-a', 'demo', '-c', 'new.json'], { api, cwd })
  assert.equal(named.code, 0, named.err)
  assert.deepEqual(JSON.parse(readFileSync(join(cwd, 'new.json'), 'utf8')), {
    app: 'demo',
    env: { A: '1' },
  })
})

test('config validate warns of keys that nobody knows; with --strict they are errors. TOML-4', async (t) => {
  const cwd = temporaryFolder(t)
  writeFileSync(join(cwd, 'fly.toml'), "app = 'demo'\n[http_servce]\n  internal_port = 80\n")
  const lax = await hangar(['config', 'validate'], { cwd })
  assert.equal(lax.code, 0)
  assert.match(lax.err, /^WARN .*fly\.toml:2: http_servce is no known key; it is ignored$/m)
  const strict = await hangar(['config', 'validate', '--strict'], { cwd })
  assert.equal(strict.code, 1)
  assert.match(strict.out, /fly\.toml:2: http_servce$/m)
  assert.doesNotMatch(strict.err, /ignored/)
})
