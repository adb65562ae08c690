import assert from 'node:assert/strict'
import { test } from 'node:test'
import { hangar, startApi, testApp, testMachine } from '../test-support.ts'

test('a full machine id tells the app where nothing else does; a name does not', async (t) => {
  const id = '12ab34cd56ef78'
  const api = await startApi({
    'GET /api/v1/viewer': { json: { email: '', organizations: [{ slug: 'personal', name: '' }] } },
    'GET /v1/apps': { json: { apps: [testApp('one'), testApp('two')] } },
    [`GET /v1/apps/two/machines/${id}`]: { json: testMachine(id) },
    [`POST /v1/apps/two/machines/${id}/exec`]: {
      json: { exit_code: 0, stdout: 'here\n', stderr: '' },
    },
  })
  t.after(api.close)
  const { code, out, err } = await hangar(['m', 'exec', id, 'ls'], { api })
  assert.equal(code, 0, err)
  assert.equal(out, 'here\n')
  for (const unknown of ['web', '00000000000000']) {
    const refused = await hangar(['m', 'status', unknown], { api })
    assert.equal(refused.code, 1)
    assert.match(refused.err, /missing an app name: give -a NAME/)
  }
})
