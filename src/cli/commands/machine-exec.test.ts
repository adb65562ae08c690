import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { test } from 'node:test'
import { limits } from '#core/limits.ts'
import { hangar, startApi, testMachine } from '../test-support.ts'

const id = '148ed123456789'
const exec = (stdout: string) => ({ json: { exit_code: 3, stdout, stderr: '' } })

test('what is written to a pipe comes whole to a reader that takes its time', async (t) => {
  const stdout = 'a line of output\n'.repeat(100_000)
  const api = await startApi({
    [`GET /v1/apps/web/machines/${id}`]: { json: testMachine(id) },
    [`POST /v1/apps/web/machines/${id}/exec`]: exec(stdout),
  })
  t.after(api.close)
  const program = new URL('../../../bin/hangar.ts', import.meta.url).pathname
  const child = spawn(process.execPath, [program, 'm', 'exec', '-a', 'web', id, 'cat log'], {
    stdio: ['ignore', 'pipe', 'inherit'],
    env: { ...process.env, HANGAR_API: api.url, FLY_API_TOKEN: 'secret-token' },
  })
  const exited = once(child, 'exit')
  // Nobody reads until it would have ended.
  await Promise.race([exited, new Promise((resolve) => setTimeout(resolve, 1_500))])
  let bytes = 0
  for await (const chunk of child.stdout) bytes += (chunk as Buffer).length
  assert.equal(bytes, stdout.length)
  assert.equal((await exited)[0], 3)
})

test('output that the cloud has cut is told', async (t) => {
  const path = `/v1/apps/web/machines/${id}`
  const answers = [exec('x'.repeat(limits.execOutputBytesMax)), exec('short')]
  const api = await startApi({
    [`GET ${path}`]: { json: testMachine(id) },
    [`POST ${path}/exec`]: () => answers.shift() ?? {},
  })
  t.after(api.close)
  const cut = await hangar(['m', 'exec', '-a', 'web', id, 'cat log'], { api })
  assert.equal(cut.code, 3)
  assert.match(cut.err, /^WARN only the first 4 MB .* exec -i\n$/)
  const whole = await hangar(['m', 'exec', '-a', 'web', id, 'cat log'], { api })
  assert.deepEqual([whole.out, whole.err], ['short', ''])
})

test('a command that no machine can take says which machine to start, or what is missing', async (t) => {
  const machines = [testMachine(id, { state: 'suspended' })]
  const api = await startApi({ 'GET /v1/apps/web/machines': () => ({ json: machines }) })
  t.after(api.close)
  const said = async (...words: string[]) => (await hangar([...words, '-a', 'web'], { api })).err
  const asleep = new RegExp(
    `machine ${id} is suspended; start it with: hangar m start ${id} -a web`,
  )
  assert.match(await said('m', 'exec', 'ls'), asleep)
  assert.match(await said('ssh', 'console'), asleep)
  assert.match(await said('m', 'exec', id), /is a machine; name a command too: .* exec .* COMMAND/)
  machines.splice(0)
  assert.match(await said('ssh', 'console'), /it has no machine; make one with: hangar deploy/)
})
