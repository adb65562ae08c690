import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import { after, before, beforeEach, test } from 'node:test'
import type { Hono } from 'hono'
import { limits } from '#core/limits.ts'
import { createApp } from '#control/apps/index.ts'
import { createToken, verifyTokens } from '#control/auth/index.ts'
import { ensureOrg } from '#control/orgs/index.ts'
import { operatorToken, startTestControl, type TestControl } from '#control/test-support.ts'
import type { Env } from './request.ts'
import { checkedApi } from './test-support.ts'

let control: TestControl
let api: Hono<Env>
let admin = ''
/** Added to the time that control sees. */
let lateMs = 0

before(async () => {
  control = await startTestControl()
  const { clock } = control.ctx
  control.ctx.clock = { ...clock, now: () => clock.now() + lateMs }
  admin = await operatorToken(control.ctx)
  api = checkedApi(control.ctx)
})
beforeEach(async () => {
  lateMs = 0
  await control.ctx.db.deleteFrom('cli_sessions').execute()
})
after(() => control.close())

type Body = Record<string, unknown>

/** A stranger's request, as the client sends it: no token. */
async function call(line: string, body?: unknown): Promise<{ status: number; body: Body }> {
  const [method = 'GET', path = '/'] = line.split(' ')
  const answer = await api.request(path, {
    method,
    headers: { 'content-type': 'application/json' },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  })
  return { status: answer.status, body: (await answer.json()) as Body }
}

const s256 = (text: string) => createHash('sha256').update(text).digest('base64url')

/** What the client sends: flyctl's own names and sizes. */
async function start(more: Body = {}) {
  const verifier = randomBytes(32).toString('base64url')
  const { status, body } = await call('POST /api/v1/cli_sessions', {
    name: 'laptop',
    signup: false,
    target: 'auth',
    code_challenge: s256(verifier),
    code_challenge_method: 'S256',
    state: 'st4te',
    redirect_port: 4567,
    ...more,
  })
  assert.equal(status, 201, JSON.stringify(body))
  const page = new URL(String(body['auth_url'])).pathname
  return { id: String(body['id']), page, verifier, body }
}

/** The form as a browser sends it. */
const send = (
  page: string,
  form: Record<string, string>,
  origin: string | null = 'http://localhost',
) =>
  api.request(page, {
    method: 'POST',
    headers: {
      'content-type': 'application/x-www-form-urlencoded',
      ...(origin === null ? {} : { origin }),
    },
    body: new URLSearchParams(form).toString(),
  })

const redeem = (id: string, code: string, code_verifier: string) =>
  call(`POST /api/v1/cli_sessions/${id}/redeem`, { code, code_verifier })

async function approve(page: string, token = admin): Promise<string> {
  const answer = await send(page, { token, way: 'redirect' })
  assert.equal(answer.status, 303, await answer.text())
  return new URL(answer.headers.get('location') ?? '').searchParams.get('code') ?? ''
}

test('a login: 201, allowed on the page, redirected to the program, redeemed once', async () => {
  const { id, page, verifier, body } = await start()
  assert.equal(body['pkce'], true)
  assert.match(String(body['auth_url']), /^http:\/\/localhost\/auth\/cli\/[\w-]{43}$/)
  const answer = await send(page, { token: ` ${admin}\n`, way: 'redirect' })
  const location = new URL(answer.headers.get('location') ?? '')
  assert.deepEqual(
    [answer.status, location.origin, location.pathname, location.searchParams.get('state')],
    [303, 'http://127.0.0.1:4567', '/callback', 'st4te'],
  )
  const code = location.searchParams.get('code') ?? ''
  // Polling gives nothing away: the token is only for who holds the verifier.
  assert.equal((await call(`GET /api/v1/cli_sessions/${id}`)).status, 404)
  const done = await redeem(id, code, verifier)
  assert.deepEqual([done.status, done.body['id'], done.body['pkce']], [200, id, true])
  const token = String(done.body['access_token'])
  assert.notEqual(token, admin)
  const caller = await verifyTokens(control.ctx, token)
  assert.deepEqual([caller.email, caller.scope], ['admin@hangar.localhost', { profile: 'admin' }])
  const days = (caller.expiresAt.getTime() - Date.now()) / 86_400_000
  assert.ok(days > 29.9 && days <= 30, `${days} days`)
  assert.equal((await redeem(id, code, verifier)).status, 404, 'a code is good once')
  assert.equal((await send(page, { token: admin })).status, 404)
  const rows = await control.ctx.db.selectFrom('cli_sessions').selectAll().execute()
  assert.deepEqual(rows, [], 'nothing is left of it')
})

test('at rest there are hashes only; two who redeem at once get one token', async () => {
  const { id, page, verifier } = await start()
  const code = await approve(page)
  const rows = await control.ctx.db.selectFrom('cli_sessions').selectAll().execute()
  const text = JSON.stringify(rows.map((row) => ({ ...row, x: row.code_hash?.toString('latin1') })))
  for (const secret of [id, code, admin, verifier]) assert.ok(!text.includes(secret))
  const both = await Promise.all([redeem(id, code, verifier), redeem(id, code, verifier)])
  assert.deepEqual(
    both.map(({ status }) => status).toSorted((a, b) => a - b),
    [200, 404],
  )
})

test('logging out ends a token of a login, also one of the operator', async () => {
  const { id, page, verifier } = await start()
  const { body } = await redeem(id, await approve(page), verifier)
  const authorization = `Bearer ${String(body['access_token'])}`
  const ask = () =>
    api.request('/graphql', {
      method: 'POST',
      headers: { authorization },
      body: JSON.stringify({ query: 'mutation LogOut { logOut(input: {}) { ok } }' }),
    })
  assert.match(await (await ask()).text(), /"ok":true/)
  assert.match(await (await ask()).text(), /was revoked at/)
})

test('wrong codes and verifiers are refused, and after too many the login is given up', async () => {
  const { id, page, verifier } = await start()
  const early = await redeem(id, 'x', verifier)
  assert.deepEqual([early.status, early.body['status']], [422, 'invalid'])
  assert.match(String(early.body['error']), /nobody has allowed/)
  const code = await approve(page)
  for (const [c, v] of [
    [code, 'wrong'],
    ['wrong', verifier],
    [code.slice(1), verifier],
    [code, s256(verifier)],
    ['', ''],
  ] as const) {
    const { status, body } = await redeem(id, c, v)
    assert.equal(status, 422)
    assert.match(String(body['error']), /code is not/)
  }
  for (const body of [{}, { code: 5, code_verifier: null }, { code: 'x'.repeat(300) }]) {
    assert.equal((await call(`POST /api/v1/cli_sessions/${id}/redeem`, body)).status, 422)
  }
  for (let i = 5; i < limits.loginFailuresMax; i++) await redeem(id, 'wrong', verifier)
  assert.equal((await redeem(id, code, verifier)).status, 404)
})

test('a login ends after fifteen minutes, and with the token that allowed it', async () => {
  const { id, page, verifier } = await start()
  const code = await approve(page)
  lateMs = 14 * 60_000
  assert.equal((await api.request(page)).status, 200)
  lateMs = 15 * 60_000 + 1_000
  assert.equal((await redeem(id, code, verifier)).status, 404)
  assert.equal((await api.request(page)).status, 404)
  lateMs = 0
  const { ctx } = control
  const scope = { profile: 'admin' } as const
  const short = await createToken(ctx, { name: 's', email: 's@x', scope, lifeMs: 3_600_000 })
  const second = await start()
  const fetched = await redeem(second.id, await approve(second.page, short.secret), second.verifier)
  const made = await verifyTokens(ctx, String(fetched.body['access_token']))
  assert.ok(made.expiresAt <= short.expiresAt, 'no longer than the token that allowed it')
  const third = await start()
  const late = await approve(third.page, short.secret)
  lateMs = 2 * 3_600_000
  await ctx.db
    .updateTable('cli_sessions')
    .set({ expires_at: new Date(Date.now() + 3 * 3_600_000) })
    .execute()
  assert.equal((await redeem(third.id, late, third.verifier)).status, 401)
})

test('old clients poll: 404 until allowed, the token once', async () => {
  const { id, page, body } = await start({ code_challenge: null, code_challenge_method: null })
  assert.equal(body['pkce'], false)
  assert.equal((await call(`GET /api/v1/cli_sessions/${id}`)).status, 404)
  assert.match(await (await api.request(page)).text(), /Whoever started this login gets the token/)
  assert.equal((await send(page, { token: admin })).status, 200)
  const first = await call(`GET /api/v1/cli_sessions/${id}`)
  assert.equal(first.status, 200)
  await verifyTokens(control.ctx, String(first.body['access_token']))
  assert.equal((await call(`GET /api/v1/cli_sessions/${id}`)).status, 404)
  assert.equal((await call('GET /api/v1/cli_sessions/none')).status, 404)
})

test('a launch gets its plan back, and no token', async () => {
  const metadata = { name: 'demo', region: 'ord', vm_cpus: 1 }
  const { id, page } = await start({ target: 'launch', metadata, code_challenge: null })
  assert.equal((await call(`GET /api/v1/cli_sessions/${id}`)).status, 404)
  assert.match(await (await api.request(page)).text(), /&quot;region&quot;: &quot;ord&quot;/)
  assert.equal((await send(page, {})).status, 200)
  const done = await call(`GET /api/v1/cli_sessions/${id}`)
  assert.deepEqual([done.status, done.body], [200, { id, metadata }])
})

test('locks narrow the token; a token allows no more than it may itself', async () => {
  const { ctx } = control
  const mine = await ensureOrg(ctx, 'mine', 'Mine')
  const other = await ensureOrg(ctx, 'others', 'Others')
  const app = await createApp(ctx, { name: 'locked', org: mine })
  const readonly = { profile: 'readonly', org_id: mine.id } as const
  const reader = await createToken(ctx, { name: 'r', email: 'r@x', scope: readonly })
  const login = async (metadata: Body, token: string) => {
    const { id, page, verifier } = await start({ metadata })
    const answer = await send(page, { token, way: 'redirect' })
    if (answer.status !== 303) return answer.status
    const code = new URL(answer.headers.get('location') ?? '').searchParams.get('code') ?? ''
    const { body } = await redeem(id, code, verifier)
    return (await verifyTokens(ctx, String(body['access_token']))).scope
  }
  const deploy = { profile: 'deploy', org_id: mine.id, app_id: app.id }
  for (const [metadata, token, wanted] of [
    [{ lock_organization: 'mine' }, admin, { profile: 'org', org_id: mine.id }],
    [{ lock_app: 'locked' }, admin, deploy],
    [{ lock_app: 'locked', lock_organization: 'mine' }, admin, deploy],
    [{ lock_app: 'locked', lock_organization: 'others' }, admin, 404],
    [{ lock_organization: 'nobody' }, admin, 404],
    [{ lock_instance: '148e' }, admin, 501],
    [{}, reader.secret, readonly],
    [{ lock_app: 'locked' }, reader.secret, { ...readonly, app_id: app.id }],
    [{ lock_organization: other.slug }, reader.secret, 403],
    [{ lock_app: null }, 'fo1_nonsense', 401],
    [{}, '', 401],
  ] as const) {
    assert.deepEqual(await login(metadata, token), wanted, JSON.stringify(metadata))
  }
})

test('the page: shows what asks, escaped; no script, no other origin; only its own form counts', async () => {
  const { page } = await start({
    name: '<script>alert(1)</script>',
    metadata: { lock_app: '"><img src=x>' },
  })
  const shown = await api.request(page)
  const text = await shown.text()
  assert.equal(shown.status, 200)
  assert.match(text, /&lt;script&gt;alert\(1\)/)
  assert.doesNotMatch(text, /<script|<img|javascript:|\son\w+=/)
  assert.doesNotMatch(text, /<[^>]*\s(src|href|action)=/)
  const policy = shown.headers.get('content-security-policy') ?? ''
  assert.match(policy, /default-src 'none'/)
  assert.match(policy, /form-action 'self' http:\/\/127\.0\.0\.1:4567/)
  const style = /<style>([^]*)<\/style>/.exec(text)?.[1] ?? ''
  assert.ok(policy.includes(`'sha256-${createHash('sha256').update(style).digest('base64')}'`))
  assert.equal(shown.headers.get('cache-control'), 'no-store')
  for (const origin of [null, 'http://evil.example', 'null', 'http://localhost.evil.example']) {
    assert.equal((await send(page, { token: admin }, origin)).status, 403, String(origin))
  }
  const wrong = await send(page, { token: 'fo1_wrong' })
  assert.equal(wrong.status, 401)
  assert.match(await wrong.text(), /no token of this cloud[^]*<form/)
  const code = await send(page, { token: admin, way: 'code' })
  assert.equal(code.status, 404, 'the lock names no app of this cloud')
  const free = await start()
  const pasted = await (await send(free.page, { token: admin, way: 'code' })).text()
  const shownCode = /<output>([\w-]{22})<\/output>/.exec(pasted)?.[1] ?? ''
  assert.equal((await redeem(free.id, shownCode, free.verifier)).status, 200)
})

test('bad input is refused: challenges, ports, sizes; and so are too many in a minute', async () => {
  for (const body of [
    { code_challenge: 'short', code_challenge_method: 'S256' },
    { code_challenge: s256('x'), code_challenge_method: 'plain' },
    { code_challenge: s256('x') },
    { redirect_port: 70_000 },
    { redirect_port: '80' },
    { name: 'x'.repeat(300) },
    { target: 'elsewhere' },
    { metadata: { lock_app: 5 } },
    { metadata: { plan: 'x'.repeat(limits.loginMetadataBytesMax) } },
  ]) {
    const { status } = await call('POST /api/v1/cli_sessions', { name: 'x', ...body })
    assert.equal(status, 422, JSON.stringify(body).slice(0, 80))
  }
  await Promise.all(Array.from({ length: limits.loginsPerMinuteMax }, () => start()))
  const more = await call('POST /api/v1/cli_sessions', { name: 'x' })
  assert.deepEqual([more.status, more.body['status']], [429, 'limit_reached'])
  lateMs = 61_000
  await start()
  lateMs = 20 * 60_000
  await start()
  const rows = await control.ctx.db.selectFrom('cli_sessions').select('name').execute()
  assert.equal(rows.length, 1, 'old ones are cleaned away')
})

/** One from elsewhere; the status. */
async function startFrom(remoteAddress: string): Promise<number> {
  const request = {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ name: 'x' }),
  }
  const env = { incoming: { socket: { remoteAddress } } }
  return (await api.request('/api/v1/cli_sessions', request, env)).status
}

test('a stranger who starts many logins keeps out nobody but those of its own address', async () => {
  const many = Array.from({ length: limits.loginsPerMinuteMax }, (_, n) =>
    startFrom(`2001:db8::${n.toString(16)}`),
  )
  assert.deepEqual(new Set(await Promise.all(many)), new Set([201]))
  assert.equal(await startFrom('2001:db8::ffff'), 429, 'the same /64')
  assert.equal(await startFrom('2001:db8:0:1::'), 201)
  assert.equal(await startFrom('::ffff:192.0.2.1'), 201)
})

test('logins that wait are bounded, of one address and of all', async () => {
  const wait = (count: number, address: string) =>
    control.ctx.db
      .insertInto('cli_sessions')
      .values(
        Array.from({ length: count }, (_, n) => ({
          id_hash: Buffer.from(`${address} ${n}`),
          name: '',
          target: 'auth',
          metadata: '{}',
          state: '',
          address,
          created_at: new Date(Date.now() - 120_000),
          expires_at: new Date(Date.now() + 120_000),
        })),
      )
      .execute()
  await wait(limits.loginsWaitingPerAddressMax, '192.0.2.1')
  assert.equal(await startFrom('192.0.2.1'), 429)
  assert.equal(await startFrom('192.0.2.2'), 201)
  await wait(limits.loginsWaitingMax - limits.loginsWaitingPerAddressMax - 1, 'many')
  assert.equal(await startFrom('192.0.2.3'), 429)
})

test('passwords: refused with a status for which clients have words of their own', async () => {
  const { status, body } = await call('POST /api/v1/sessions', {
    data: { attributes: { email: 'a@b', password: 'c', otp: '' } },
  })
  assert.deepEqual([status, body['status']], [401, 'unauthorized'])
  assert.match(String(body['error']), /no passwords/)
})
