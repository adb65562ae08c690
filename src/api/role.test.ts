import assert from 'node:assert/strict'
import { spawn, type ChildProcess } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { after, before, test } from 'node:test'
import { startTestPostgres, type TestPostgres } from '#control/store/test-support.ts'
import { eventually, freePort } from '#sys/test-support.ts'

let pg: TestPostgres
let dir = ''
let base = ''
let control: ChildProcess | undefined

before(async () => {
  pg = await startTestPostgres()
  dir = mkdtempSync(join(tmpdir(), 'hangar-role-'))
  const port = await freePort()
  base = `http://127.0.0.1:${port}`
  writeFileSync(join(dir, 'cluster.key'), 'key\n')
  writeFileSync(
    join(dir, 'settings.json'),
    JSON.stringify({
      dir: join(dir, 'control'),
      database_url: pg.url,
      nats_url: 'nats://127.0.0.1:1',
      cluster_key_file: join(dir, 'cluster.key'),
      listen: { address: '127.0.0.1', port },
      domain: 'hangar.localhost',
      http_port: 80,
      https_port: 443,
      registry_host: '127.0.0.1:2',
      registry_token_key_file: join(dir, 'none.key'),
      registry_token_cert_file: join(dir, 'none.pem'),
      docker_host: `unix://${dir}/none.sock`,
      regions: ['ord'],
      first_token_file: join(dir, 'token'),
    }),
  )
})
after(async () => {
  control?.kill('SIGKILL')
  await pg.close()
  rmSync(dir, { recursive: true, force: true })
})

async function start(): Promise<ChildProcess> {
  const program = resolve(import.meta.dirname, '../../bin/hangar.ts')
  const args = [program, 'control', '--settings', join(dir, 'settings.json')]
  const child = spawn(process.execPath, args, { stdio: 'ignore' })
  control = child
  return eventually('control serves', async () => {
    assert.equal(child.exitCode, null, 'control ended')
    const answer = await fetch(`${base}/healthz`).catch(() => undefined)
    return answer?.ok === true && child
  })
}

async function call(method: string, path: string, body?: unknown): Promise<[number, unknown]> {
  const answer = await fetch(base + path, {
    method,
    headers: { authorization: `Bearer ${readFileSync(join(dir, 'token'), 'utf8').trim()}` },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  })
  return [answer.status, await answer.json()]
}

const ended = (child: ChildProcess) => new Promise((done) => child.once('exit', done))

test('control serves with the bus down; killed with -9 and started again, nothing acknowledged is lost', async () => {
  const first = await start()
  const [made] = await call('POST', '/v1/apps', { name: 'kept' })
  assert.equal(made, 201)
  await call('POST', '/v1/apps/kept/secrets', { values: { A: 'b' } })
  const token = readFileSync(join(dir, 'token'), 'utf8')
  first.kill('SIGKILL')
  await ended(first)
  const second = await start()
  assert.equal(readFileSync(join(dir, 'token'), 'utf8'), token)
  const [status, secrets] = await call('GET', '/v1/apps/kept/secrets?show_secrets=true')
  assert.equal(status, 200)
  assert.match(JSON.stringify(secrets), /"value":"b"/)
  const [refused, why] = await call('POST', '/v1/apps/kept/machines', { config: { image: 'x' } })
  assert.equal(refused, 412)
  assert.match(JSON.stringify(why), /could not reserve resource for machine/)
  await pg.restart(async () => {
    const [down, text] = await call('GET', '/v1/apps')
    assert.equal(down, 500)
    assert.match(JSON.stringify(text), /the database does not answer/)
  })
  assert.equal((await call('GET', '/v1/apps'))[0], 200, 'it goes on when the database is back')
  second.kill('SIGTERM')
  assert.equal(await ended(second), 0, 'it stops cleanly when told to')
})
