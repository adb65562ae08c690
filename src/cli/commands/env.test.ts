import assert from 'node:assert/strict'
import { test } from 'node:test'
import { hangar } from '../test-support.ts'

test('env exports the names that the Machines API’s examples with curl use', async () => {
  const { out } = await hangar(['env'], { env: { HANGAR_API: 'http://127.0.0.1:4999' } })
  assert.match(out, /^export FLY_API_HOSTNAME='http:\/\/127.0.0.1:4999'$/m)
  assert.match(out, /^export FLY_API_TOKEN='secret-token'$/m)
})
