import assert from 'node:assert/strict'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import http from 'node:http'
import type { AddressInfo } from 'node:net'
import { hostname } from 'node:os'
import { join } from 'node:path'
import { PassThrough, Readable } from 'node:stream'
import { after, before, test } from 'node:test'
import { serve, type ServerType } from '@hono/node-server'
import { packTar } from 'modern-tar'
import { createToken } from '#control/auth/index.ts'
import { makeSigningKey, startTestDocker, startTestRegistry } from '#control/build/test-support.ts'
import { discardOldBuilds } from '#control/build/index.ts'
import { thisRunner } from '#control/runner.ts'
import { ensureOrg } from '#control/orgs/index.ts'
import { operatorToken, startTestControl, type TestControl } from '#control/test-support.ts'
import { httpRequest } from '#sys/http-client.ts'
import { run } from '#sys/process.ts'
import { eventually } from '#sys/test-support.ts'
import { createApi } from './server.ts'

let control: TestControl
let server: ServerType
let registry: { host: string; close(): Promise<void> }
let docker: { host: string; close(): Promise<void> }
let base = ''
let admin = ''

before(async () => {
  control = await startTestControl()
  const { ctx, dir } = control
  const { registry_token_key_file: key, registry_token_cert_file: certFile } = ctx.settings
  await makeSigningKey(key, certFile)
  admin = await operatorToken(ctx)
  server = serve({ fetch: createApi(ctx).fetch, hostname: '127.0.0.1', port: 0 })
  await new Promise((resolve) => server.once('listening', resolve))
  base = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  const started = await Promise.all([
    startTestRegistry({ dir, realm: `${base}/registry/token`, certFile }),
    startTestDocker(dir),
  ])
  ;[registry, docker] = started
  ctx.settings.registry_host = registry.host
  ctx.settings.docker_host = docker.host
  for (const name of ['web', 'other']) await post('/v1/apps', { name })
})
after(async () => {
  ;(server as http.Server).closeAllConnections()
  await new Promise((resolve) => server.close(resolve))
  await Promise.all([registry.close(), docker.close()])
  await control.close()
})

async function post(path: string, body: unknown): Promise<Record<string, unknown>> {
  const answer = await fetch(base + path, {
    method: 'POST',
    headers: { authorization: `Bearer ${admin}` },
    body: JSON.stringify(body),
  })
  return (await answer.json()) as Record<string, unknown>
}

interface Line {
  level?: string
  message?: string
  status?: string
  image?: { ref: string; digest: string; size: number }
  error?: string
}

const tarOf = async (files: Record<string, string | Buffer>): Promise<Buffer> =>
  Buffer.from(
    await packTar(
      Object.entries(files).map(([name, text]) => {
        const body = Buffer.from(text)
        return { header: { name, size: body.length, mode: 0o755 }, body }
      }),
    ),
  )

async function build(
  files: Record<string, string | Buffer>,
  options: Record<string, unknown> = {},
): Promise<{ last: Line; said: string }> {
  const { id } = await post('/api/v1/apps/web/builds', options)
  const tar = await tarOf(files)
  const answer = await httpRequest(base, {
    method: 'PUT',
    path: `/api/v1/apps/web/builds/${String(id)}/context`,
    headers: { authorization: `Bearer ${admin}` },
    body: Readable.from([tar]),
  })
  assert.equal(answer.status, 200)
  let text = ''
  for await (const chunk of answer.body) text += String(chunk)
  const lines = text
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as Line)
  return { last: lines.at(-1) as Line, said: lines.map((line) => line.message ?? '').join('\n') }
}

const busybox = readFileSync('/bin/busybox')
const skopeo = (...args: string[]) => run('skopeo', args)

test('a Dockerfile becomes an image in the registry, with args, a stage and a secret that no layer keeps', async () => {
  const dockerfile = [
    'FROM scratch AS one',
    'COPY busybox /bin/busybox',
    'ARG WHO',
    'RUN --mount=type=secret,id=KEY ["/bin/busybox","sh","-c","echo hello $WHO $(/bin/busybox wc -c < /run/secrets/KEY)"]',
    'FROM scratch AS two',
    'COPY nothing /',
  ].join('\n')
  const files = { 'app.Dockerfile': dockerfile, busybox }
  const { last, said } = await build(files, {
    dockerfile: 'app.Dockerfile',
    target: 'one',
    args: { WHO: 'world' },
    secrets: { KEY: 'sesame' },
  })
  assert.equal(last.status, 'complete', JSON.stringify(last))
  assert.match(said, /hello world 6/)
  assert.match(last.image?.ref ?? '', new RegExp(`^${registry.host}/web:deployment-[0-9A-Z]{26}$`))
  assert.match(last.image?.digest ?? '', /^sha256:[0-9a-f]{64}$/)
  assert.ok((last.image?.size ?? 0) > 100_000)
  const builds = join(control.ctx.settings.dir, 'builds')
  assert.deepEqual(existsSync(builds) ? readdirSync(builds) : [], [], 'SEC-9: nothing is left')
  const row = await control.ctx.db.selectFrom('builds').selectAll().executeTakeFirstOrThrow()
  assert.deepEqual([row.status, row.digest], ['complete', last.image?.digest])

  // The registry's own view, through its token flow: who may pull what.
  const { ctx } = control
  const org = await ensureOrg(ctx, 'elsewhere', 'Elsewhere')
  const scope = { profile: 'org', org_id: org.id } as const
  const stranger = await createToken(ctx, { name: 's', email: 's@x', scope })
  const inspect = (creds: string) =>
    skopeo('inspect', '--tls-verify=false', `--creds=${creds}`, `docker://${last.image?.ref}`)
  for (const creds of [`x:${admin}`, 'cluster:cluster-key']) {
    const { code, stdout, stderr } = await inspect(creds)
    assert.equal(code, 0, stderr)
    assert.equal((JSON.parse(stdout) as { Digest: string }).Digest, last.image?.digest)
  }
  for (const creds of [`x:${stranger.secret}`, 'x:wrong', 'cluster:wrong', 'build:wrong']) {
    assert.notEqual((await inspect(creds)).code, 0, creds)
  }
  const copy = (creds: string, to: string) =>
    run('skopeo', [
      'copy',
      '--src-tls-verify=false',
      '--dest-tls-verify=false',
      `--src-creds=x:${admin}`,
      `--dest-creds=${creds}`,
      `docker://${last.image?.ref}`,
      `docker://${registry.host}/${to}`,
    ])
  assert.equal((await copy(`x:${admin}`, 'other:v1')).code, 0)
  assert.notEqual((await copy('cluster:cluster-key', 'other:v2')).code, 0, 'a host only pulls')
  assert.notEqual((await copy(`x:${admin}`, 'no-such-app:v1')).code, 0, 'no app, no repository')
})

test('a failing step is told with its line and its last words; a bad Dockerfile and a missing one too', async () => {
  const dockerfile =
    'FROM scratch\nCOPY busybox /bin/busybox\nRUN ["/bin/busybox","sh","-c","echo about to fail; exit 3"]\n'
  const failed = await build({ Dockerfile: dockerfile, busybox })
  assert.equal(failed.last.status, 'failed')
  assert.match(
    failed.last.error ?? '',
    /^Dockerfile line 3: RUN .*: exit code 3; it said:\nabout to fail$/s,
  )
  const unknown = await build({ Dockerfile: 'FROM scratch\nBADCMD x\n' })
  assert.match(unknown.last.error ?? '', /Dockerfile.*line 2: unknown instruction: BADCMD/)
  const missing = await build({ hello: 'x' })
  assert.match(missing.last.error ?? '', /Dockerfile.*no such file/)
})

test('a client that goes away cancels its build', async () => {
  const { id } = await post('/api/v1/apps/web/builds', {})
  const dockerfile = 'FROM scratch\nCOPY busybox /bin/busybox\nRUN ["/bin/busybox","sleep","60"]\n'
  const files = { Dockerfile: dockerfile, busybox }
  const tar = await tarOf(files)
  const leave = new AbortController()
  const answer = await httpRequest(base, {
    method: 'PUT',
    path: `/api/v1/apps/web/builds/${String(id)}/context`,
    headers: { authorization: `Bearer ${admin}` },
    body: new PassThrough().end(tar),
    signal: leave.signal,
  })
  for await (const chunk of answer.body) if (String(chunk).includes('sleep')) break
  leave.abort()
  const status = async () =>
    (
      await control.ctx.db
        .selectFrom('builds')
        .select('status')
        .where('id', '=', String(id))
        .executeTakeFirstOrThrow()
    ).status
  await eventually('it has ended', async () => (await status()) !== 'running')
  assert.equal(await status(), 'cancelled')
  assert.deepEqual(readdirSync(join(control.ctx.settings.dir, 'builds')), [])
})

test('builds of a dead process have failed when control starts again', async () => {
  const { ctx } = control
  const app = await ctx.db.selectFrom('apps').select('id').executeTakeFirstOrThrow()
  await ctx.db
    .insertInto('builds')
    .values({ id: 'old', app_id: app.id, status: 'running', runner: thisRunner })
    .execute()
  await ctx.db
    .insertInto('builds')
    .values({ id: 'dead', app_id: app.id, status: 'running', runner: `${hostname()}:1:1` })
    .execute()
  await discardOldBuilds(ctx)
  const rows = await ctx.db
    .selectFrom('builds')
    .select(['id', 'status'])
    .where('id', 'in', ['old', 'dead'])
    .orderBy('id')
    .execute()
  assert.deepEqual(rows, [
    { id: 'dead', status: 'failed' },
    { id: 'old', status: 'running' },
  ])
})
