import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { existsSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import http from 'node:http'
import { join } from 'node:path'
import { test } from 'node:test'
import { hangar, startApi, temporaryFolder, type SeenRequest } from '../test-support.ts'

const viewer = { json: { email: 'me@x', organizations: [{ slug: 'personal', name: 'Personal' }] } }
const noTokens = { FLY_API_TOKEN: '', FLY_ACCESS_TOKEN: '' }
type Fields = Record<string, unknown>

/** The browser's part: the redirect of the page. */
async function redirectTo(port: unknown, state: unknown, code: string): Promise<void> {
  const path = `/callback?code=${code}&state=${String(state)}`
  const [answer] = (await once(
    http.get(`http://127.0.0.1:${Number(port)}${path}`),
    'response',
  )) as [http.IncomingMessage]
  answer.resume()
}

/** A cloud that allows every login at once, when `allow` sends the code. */
const loginRoutes = (
  allow: (asked: Fields) => void | Promise<void>,
  challenge: { of: string },
) => ({
  'POST /api/v1/cli_sessions': ({ json }: SeenRequest) => {
    challenge.of = String((json as Fields)['code_challenge'])
    setImmediate(() => void allow(json as Fields))
    return { status: 201, json: { id: 'ses', auth_url: 'http://cloud/auth/cli/ses', pkce: true } }
  },
  'POST /api/v1/cli_sessions/ses/redeem': ({ json }: SeenRequest) => {
    const { code, code_verifier } = json as Fields
    const proof = createHash('sha256').update(String(code_verifier)).digest('base64url')
    return code === 'right' && proof === challenge.of
      ? { json: { id: 'ses', access_token: 'login-token' } }
      : { status: 422, json: { error: 'the code is not the one', status: 'invalid' } }
  },
  'GET /api/v1/viewer': viewer,
  'POST /graphql': { json: { data: { logOut: { ok: true } } } },
})

test('login by the browser: kept with mode 0600, used from then on, and only for this cloud; logout ends it', async (t) => {
  const home = temporaryFolder(t)
  const challenge = { of: '' }
  const allow = async (asked: Fields) => {
    await redirectTo(asked['redirect_port'], 'wrong', 'right')
    await redirectTo(asked['redirect_port'], asked['state'], 'wrong')
    await redirectTo(asked['redirect_port'], asked['state'], 'right')
  }
  const api = await startApi(loginRoutes(allow, challenge))
  t.after(api.close)
  const env = { ...noTokens, HANGAR_HOME: home }
  const done = await hangar(['auth', 'login'], { api, env })
  assert.equal(done.code, 0, done.err)
  assert.match(done.out, /http:\/\/cloud\/auth\/cli\/ses[^]*successfully logged in as me@x/)
  assert.match(done.err, /the code is not the one/)
  const redeems = api.asked('POST /api/v1/cli_sessions/ses/redeem')
  assert.equal(redeems.length, 2, 'another state is another login')
  const file = join(home, 'login.json')
  assert.equal(statSync(file).mode & 0o777, 0o600)
  writeFileSync(join(home, 'token'), 'first\n')
  const used = async (more: Record<string, string> = {}) =>
    (await hangar(['auth', 'token'], { api, env: { ...env, ...more } })).out.trim()
  assert.equal(await used(), 'login-token')
  assert.equal(await used({ FLY_ACCESS_TOKEN: 'mine' }), 'mine')
  assert.equal(await used({ HANGAR_API: 'http://127.0.0.1:9' }), 'first')
  assert.match((await hangar(['auth', 'whoami', '--json'], { api, env })).out, /"email": "me@x"/)
  const out = await hangar(['auth', 'logout'], { api, env })
  assert.deepEqual([out.code, out.out], [0, 'logged out\n'])
  const [revoked] = api.asked('POST /graphql')
  assert.equal(revoked?.authorization, 'Bearer login-token')
  assert.ok(!existsSync(file))
  assert.equal(readFileSync(join(home, 'token'), 'utf8'), 'first\n')
  assert.match((await hangar(['auth', 'logout'], { api, env })).err, /nothing to do/)
})

test('login by a code that is pasted; a login that is over ends the wait', async (t) => {
  const home = temporaryFolder(t)
  const challenge = { of: '' }
  const api = await startApi(loginRoutes(() => {}, challenge))
  t.after(api.close)
  const env = { ...noTokens, HANGAR_HOME: home }
  const done = await hangar(['auth', 'login'], { api, env, stdin: '\n wrong \nright\n' })
  assert.equal(done.code, 0, done.err)
  const over = await startApi({
    ...loginRoutes(() => {}, challenge),
    'POST /api/v1/cli_sessions/ses/redeem': {
      status: 404,
      json: { error: 'there is no such login', status: 'not_found' },
    },
  })
  t.after(over.close)
  const ended = await hangar(['auth', 'login'], { api: over, env, stdin: 'right\n' })
  assert.equal(ended.code, 1)
  assert.match(ended.err, /there is no such login/)
})

test('orgs and tokens: what is asked, what is printed', async (t) => {
  const org = { id: 'org_1', name: 'Personal', slug: 'personal', type: 'PERSONAL' }
  const token = {
    id: 'tok_1',
    name: 'ci',
    expiresAt: '2046-01-01T00:00:00.000Z',
    revokedAt: null,
    user: { email: 'me@x' },
  }
  const api = await startApi({
    'GET /api/v1/viewer': viewer,
    'GET /v1/apps/demo': { json: { id: 'app_1', name: 'demo', organization: org } },
    'POST /graphql': ({ json }) => {
      const { query, variables } = json as { query: string; variables: Fields }
      if (query.includes('createLimitedAccessToken')) {
        return {
          json: {
            data: { createLimitedAccessToken: { limitedAccessToken: { tokenHeader: 'fo1_new' } } },
          },
        }
      }
      if (query.includes('deleteLimitedAccessToken') && variables['id'] === 'tok_none') {
        const error = { message: 'there is no token tok_none', extensions: { code: 'NOT_FOUND' } }
        return { json: { data: null, errors: [error] } }
      }
      const deleteLimitedAccessToken = { madeRevoked: variables['id'] === 'tok_2' ? 3 : 0 }
      if (query.includes('deleteLimitedAccessToken')) {
        return { json: { data: { deleteLimitedAccessToken } } }
      }
      const owner = { limitedAccessTokens: { nodes: [token] } }
      const members = { edges: [{ node: { name: 'me', email: 'me@x' }, role: 'ADMIN' }] }
      return {
        json: {
          data: {
            owner,
            organizations: { nodes: [org] },
            organization: { ...org, viewerRole: 'admin', members },
            createOrganization: { organization: org },
          },
        },
      }
    },
  })
  t.after(api.close)
  const out = async (...argv: string[]) => {
    const done = await hangar(argv, { api })
    assert.equal(done.code, 0, done.err)
    return done.out
  }
  assert.deepEqual(JSON.parse(await out('orgs', 'list', '--json')), { personal: 'Personal' })
  assert.match(await out('orgs', 'list'), /Personal +personal +PERSONAL/)
  assert.match(await out('orgs', 'show', 'personal'), /me@x +ADMIN/)
  assert.match(await out('orgs', 'create', 'Personal'), /New organization created: Personal/)
  assert.equal(await out('tokens', 'create', 'deploy', '-a', 'demo', '-x', '1h'), 'fo1_new\n')
  assert.equal(await out('tokens', 'create', 'org', 'personal'), 'fo1_new\n')
  assert.equal(
    await out('tokens', 'create', 'readonly', '-a', 'demo', '--json')
      .then(JSON.parse)
      .then((x: Fields) => x['token']),
    'fo1_new',
  )
  const inputs = api
    .asked('POST /graphql')
    .map(({ json }) => (json as { variables: { input?: Fields } }).variables.input)
    .filter((input) => input?.['profile'] !== undefined) as Fields[]
  assert.deepEqual(
    inputs.map((input) => [
      input['profile'],
      input['organizationId'],
      input['profileParams'],
      input['expiry'],
    ]),
    [
      ['deploy', 'personal', { app_id: 'app_1' }, '1h'],
      ['org', 'org_1', undefined, null],
      ['readonly', 'personal', { app_id: 'app_1' }, null],
    ],
  )
  assert.deepEqual(JSON.parse(await out('tokens', 'list', '-a', 'demo', '--json')), [token])
  assert.match(await out('tokens', 'list', '-o', 'personal'), /tok_1 +ci +me@x/)
  const revoked = await hangar(['tokens', 'revoke', 'tok_none', 'tok_1', 'tok_2'], { api })
  assert.deepEqual(
    [revoked.code, revoked.out],
    [1, 'Revoked tok_1\nRevoked tok_2 and 3 that it had made\n2 tokens revoked\n'],
  )
  assert.match((await hangar(['tokens', 'list', '-s', 'all'], { api })).err, /app or org/)
  assert.match((await hangar(['orgs', 'show'], { api })).err, /which organization/)
})

test('logout keeps a token that it could not revoke, and forgets one that is no good any more', async (t) => {
  const home = temporaryFolder(t)
  const file = join(home, 'login.json')
  let code = 'INTERNAL'
  const api = await startApi({
    'POST /graphql': () => ({
      json: { data: null, errors: [{ message: 'the database is down', extensions: { code } }] },
    }),
  })
  t.after(api.close)
  writeFileSync(file, JSON.stringify({ api: api.url, token: 'login-token' }))
  const env = { ...noTokens, HANGAR_HOME: home }
  const failed = await hangar(['auth', 'logout'], { api, env })
  assert.equal(failed.code, 1)
  assert.match(failed.err, /the database is down/)
  assert.ok(existsSync(file))
  code = 'UNAUTHORIZED'
  assert.equal((await hangar(['auth', 'logout'], { api, env })).code, 0)
  assert.ok(!existsSync(file))
})
