import assert from 'node:assert/strict'
import { once } from 'node:events'
import { PassThrough } from 'node:stream'
import { test, type TestContext } from 'node:test'
import { serveApi } from '#api/index.ts'
import { hangar } from '#cli/test-support.ts'
import { createToken } from '#control/auth/index.ts'
import { isFault } from '#core/fault.ts'
import type { TestHost } from '#host/testing.ts'
import { writeProgramQuery, type ProgramQuery } from '#spec/program.ts'
import { callJson } from '#sys/http-client.ts'
import { eventually, freePort } from '#sys/test-support.ts'
import { openWebSocket, type WebSocket } from '#sys/web-socket.ts'
import { announceHost, openRealHost } from './support/real-host.ts'

/** Programs with open streams from the command line to the driver, over a real control and a real host; the programs are fakes. */

interface Cloud {
  url: string
  host: TestHost
  tokens: { operator: string; readonly: string }
  machine: string
  close(): Promise<void>
}

async function startCloud(t: TestContext): Promise<Cloud> {
  const { ctx, host, token: operator } = await openRealHost(t)
  announceHost(t, { ctx, host })
  const port = await freePort()
  ctx.settings.listen = { address: '127.0.0.1', port }
  const api = await serveApi(ctx)
  let open = true
  const close = async () => {
    if (open) await api.close()
    open = false
  }
  t.after(close)
  const url = `http://127.0.0.1:${port}`
  const call = <T>(line: string, body?: unknown) => {
    const [method = '', path = ''] = line.split(' ')
    const headers = { authorization: `Bearer ${operator}` }
    return callJson<T>(url, { method, path, headers, ...(body ? { body } : {}) })
  }
  await call('POST /v1/apps', { app_name: 'web', org_slug: 'personal' })
  const config = { image: 'one' }
  const { id } = await call<{ id: string }>('POST /v1/apps/web/machines', { config })
  await call(`GET /v1/apps/web/machines/${id}/wait?state=started`)
  const { organization } = await call<{ organization: { id: string } }>('GET /v1/apps/web')
  const scope = { profile: 'readonly', org_id: organization.id } as const
  const { secret } = await createToken(ctx, { name: 'r', email: 'r@x', scope })
  return { url, host, tokens: { operator, readonly: secret }, machine: id, close }
}

const open = (cloud: Cloud, query: Partial<ProgramQuery>, token = cloud.tokens.operator) =>
  openWebSocket(cloud.url, {
    path: `/api/v1/apps/web/machines/${cloud.machine}/exec?${writeProgramQuery(query)}`,
    headers: { authorization: `Bearer ${token}` },
    timeoutMs: 30_000,
  })

const idle = ({ host, machine }: Cloud) =>
  eventually('the program has ended', async () => !host.agent.execs.any(machine))

async function echo(socket: WebSocket, text: string): Promise<void> {
  socket.resume()
  socket.send(Buffer.from(text))
  const [data] = (await once(socket, 'message')) as [Buffer]
  assert.equal(data.toString('utf8', 1), text)
}

test('a pipe through the command line: both ways, whole, with the exit code and both outputs', async (t) => {
  const cloud = await startCloud(t)
  const env = { HANGAR_API: cloud.url, FLY_API_TOKEN: cloud.tokens.operator }
  const exec = (stdin: string, ...words: string[]) =>
    hangar(['m', 'exec', '-a', 'web', ...words], { env, stdin })
  const stdin = 'Hangar\r\n'.repeat(200_000)
  const piped = await exec(stdin, '-i', cloud.machine, '--', 'cat', '-u')
  assert.equal(piped.code, 0, piped.err)
  assert.ok(piped.out === stdin, `${piped.out.length} of ${stdin.length} came back`)
  assert.equal(cloud.host.driver.calls.at(-1), `open ${cloud.machine} cat -u`)
  cloud.host.driver.onOpen = () => {
    const [stdout, stderr] = [new PassThrough(), new PassThrough()]
    stdout.end('out\n')
    stderr.end('err\n')
    const exited = Promise.resolve({ exitCode: 143, signal: 15, timedOut: false })
    const stdin = new PassThrough()
    return { stdin, stdout, stderr, exited, signal() {}, resize() {}, close() {} }
  }
  const failed = await exec('', '-i', cloud.machine, 'job it')
  assert.deepEqual([failed.code, failed.out, failed.err], [143, 'out\n', 'err\n'])
  assert.equal(cloud.host.driver.calls.at(-1), `open ${cloud.machine} job it`)
  const shell = await hangar(['ssh', 'console', '-a', 'web', '-C', 'job'], { env })
  assert.deepEqual([shell.code, shell.out], [143, 'out\n'])
  const noTerminal = await exec('', '-it', cloud.machine, 'sh')
  assert.equal(noTerminal.code, 1)
  assert.match(noTerminal.err, /no terminal; leave out --tty/)
  const long = await exec('', '-i', cloud.machine, '--', 'echo', 'x'.repeat(20_000))
  assert.match(long.err, /too long.*as input/)
  await idle(cloud)
})

test('whoever may not exec may not open, and is told before there is a WebSocket', async (t) => {
  const cloud = await startCloud(t)
  const refused = (token: string, code: Parameters<typeof isFault>[1]) =>
    assert.rejects(open(cloud, { cmd: 'cat' }, token), (error) => isFault(error, code))
  await refused(cloud.tokens.readonly, 'forbidden')
  await refused('fo1_forged', 'unauthorized')
  assert.ok(!cloud.host.driver.calls.some((line) => line.startsWith('open')))
  await assert.rejects(open(cloud, { cmd: 'cat', rows: -1 }), (error) => isFault(error, 'invalid'))
  await assert.rejects(open({ ...cloud, machine: 'nobody' }, { cmd: 'cat' }), (error) =>
    isFault(error, 'not_found'),
  )
  // Another upgrade than this is none, and is answered as if nobody had asked for it.
  const headers = { connection: 'upgrade', upgrade: 'h2c' }
  assert.deepEqual(await callJson(cloud.url, { method: 'GET', path: '/healthz', headers }), {
    ok: true,
  })
})

test('the end of a client, of the host or of control is the end of a program', async (t) => {
  const cloud = await startCloud(t)
  const client = await open(cloud, { cmd: 'cat' })
  await echo(client, 'here')
  assert.equal(cloud.host.agent.execs.any(cloud.machine), true)
  client.terminate()
  await idle(cloud)
  const second = await open(cloud, { cmd: 'cat' })
  await echo(second, 'there')
  const closed = once(second, 'close')
  await cloud.close()
  await closed
  await idle(cloud)
})

test('a host that goes away is told to the client', async (t) => {
  const cloud = await startCloud(t)
  const socket = await open(cloud, { cmd: 'cat' })
  await echo(socket, 'here')
  cloud.host.crash()
  const [code, reason] = (await once(socket, 'close')) as [number, Buffer]
  assert.deepEqual([code, reason.toString()], [1011, 'the connection behind broke'])
})
