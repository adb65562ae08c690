import assert from 'node:assert/strict'
import { test } from 'node:test'
import { hangar, startApi, testApp, testMachine } from '../test-support.ts'

test('machine run takes flyctl’s words for restart policies, and names them where one is wrong', async (t) => {
  const api = await startApi({
    'GET /v1/apps/demo': { json: testApp('demo') },
    'POST /v1/apps/demo/machines': { json: testMachine('m1') },
    'GET /v1/apps/demo/machines/m1/wait': { json: { ok: true } },
  })
  t.after(api.close)
  const sent = async (policy: string) => {
    const words = ['m', 'run', 'x', '-a', 'demo', '--restart', policy]
    return { ...(await hangar(words, { api })), body: api.asked('POST /v1/apps/demo/machines') }
  }
  const short = await sent('on-fail')
  assert.equal(short.code, 0, short.err)
  assert.deepEqual(short.body.at(-1)?.json, {
    config: { image: 'x', restart: { policy: 'on-failure' } },
  })
  const wrong = await sent('sometimes')
  assert.match(wrong.err, /--restart is no, on-failure or always, not "sometimes"/)
  assert.equal(wrong.body.length, 1)
})

test('machine run says how much a root is and what keeps it, and refuses what is no size or no word', async (t) => {
  const api = await startApi({
    'GET /v1/apps/demo': { json: testApp('demo') },
    'POST /v1/apps/demo/machines': { json: testMachine('m1') },
    'GET /v1/apps/demo/machines/m1/wait': { json: { ok: true } },
  })
  t.after(api.close)
  const words = ['m', 'run', 'x', '-a', 'demo']
  for (const size of ['2', '2gb']) {
    await hangar([...words, '--rootfs-persist', 'always', '--rootfs-size', size], { api })
  }
  const sent = api.asked('POST /v1/apps/demo/machines').map(({ json }) => json)
  const config = {
    image: 'x',
    restart: { policy: 'always' },
    rootfs: { persist: 'always', size_gb: 2 },
  }
  assert.deepEqual(sent, [{ config }, { config }])
  for (const size of ['0', '512mb', 'much']) {
    const wrong = await hangar([...words, '--rootfs-size', size], { api })
    assert.match(wrong.err, /is no size in whole GB/)
  }
  const wrong = await hangar([...words, '--rootfs-persist', 'sometimes'], { api })
  assert.match(wrong.err, /--rootfs-persist is one of never, restart, always, not "sometimes"/)
})
