import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import type { Hono } from 'hono'
import { Fault } from '#core/fault.ts'
import { createToken } from '#control/auth/index.ts'
import { ensureOrg } from '#control/orgs/index.ts'
import { operatorToken, startTestControl, type TestControl } from '#control/test-support.ts'
import type { Env } from './request.ts'
import { checkedApi } from './test-support.ts'

let control: TestControl
let api: Hono<Env>
let admin = ''

before(async () => {
  control = await startTestControl()
  admin = await operatorToken(control.ctx)
  api = checkedApi(control.ctx)
})

after(() => control.close())

type Body = Record<string, unknown>

async function call(line: string, body?: unknown, token = admin) {
  const [method = 'GET', path = '/'] = line.split(' ')
  const answer = await api.request(path, {
    method,
    headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  })
  const text = await answer.text()
  return { status: answer.status, body: (text === '' ? {} : JSON.parse(text)) as Body }
}

async function newApp(name: string): Promise<string> {
  const { status } = await call('POST /v1/apps', { name, org_slug: 'personal' })
  assert.equal(status, 201)
  return name
}

test('organizations: the numeric id is a number here', async () => {
  const list = await call('GET /api/v1/organizations?admin=false')
  const one = await call('GET /api/v1/organizations/personal')
  const org = one.body['organization'] as Body
  assert.deepEqual([list.status, one.status], [200, 200])
  assert.deepEqual((list.body['organizations'] as Body[])[0], org)
  assert.equal(typeof org['internal_numeric_id'], 'number')
  assert.equal(org['billing_status'], 'CURRENT')
  assert.equal(typeof org['remote_builder_image'], 'string')
  assert.equal((await call('GET /api/v1/organizations/none')).status, 404)
  assert.equal((await call('POST /api/v1/organizations/personal/builders', {})).status, 501)
})

test('DEP-1: a release that its client drives: wrapped when made, bare when moved', async () => {
  await newApp('drive')
  const definition = { app: 'drive', http_service: { auto_stop_machines: 'suspend' } }
  const made = await call('POST /api/v1/releases', {
    app_name: 'drive',
    build_id: 7,
    definition,
    image: 'r/i:t',
    strategy: 'ROLLING',
  })
  const release = made.body['release'] as Body
  assert.equal(made.status, 201)
  assert.deepEqual(
    [release['version'], release['status'], release['strategy'], release['in_progress']],
    [1, 'pending', 'ROLLING', true],
  )
  assert.equal(typeof release['user'], 'string')
  assert.ok(Number.isFinite(Date.parse(String(release['created_at']))))
  const one = `PATCH /api/v1/releases/${String(release['id'])}`
  assert.equal((await call('GET /api/v1/apps/drive/releases/current')).status, 404)
  for (const status of ['running', 'running', 'complete', 'complete', 'failed']) {
    const moved = await call(one, { status, metadata: null })
    assert.equal(moved.status, 200, status)
    assert.equal(moved.body['id'], release['id'], 'not wrapped')
  }
  const current = await call('GET /api/v1/apps/drive/releases/current')
  assert.deepEqual(
    [current.body['status'], current.body['stable'], current.body['driver']],
    ['complete', true, 'client'],
  )
  const list = await call('GET /api/v1/apps/drive/releases?limit=20')
  assert.equal((list.body['releases'] as Body[]).length, 1)
  assert.deepEqual((await call('GET /api/v1/apps/drive/definition')).body, definition)
  const times = await call('GET /api/v1/releases/all_current')
  assert.equal(times.body['drive'], release['created_at'])
})

test('releases: refused without an image, for a foreign app, for an unknown status, for one of the cloud', async () => {
  await newApp('strict')
  const base = { app_name: 'strict', image: 'r/i:t', definition: {}, strategy: 'SIMPLE' }
  assert.equal((await call('POST /api/v1/releases', { ...base, image: null })).status, 422)
  assert.equal((await call('POST /api/v1/releases', { ...base, definition: [] })).status, 422)
  assert.equal((await call('POST /api/v1/releases', { ...base, app_name: 5 })).status, 422)
  const other = await ensureOrg(control.ctx, 'elsewhere', 'Elsewhere')
  const stranger = await createToken(control.ctx, {
    name: 's',
    email: 's@x',
    scope: { profile: 'org', org_id: other.id },
  })
  assert.equal((await call('POST /api/v1/releases', base, stranger.secret)).status, 403)
  const { body } = await call('POST /api/v1/releases', base)
  const one = `PATCH /api/v1/releases/${String((body['release'] as Body)['id'])}`
  assert.equal((await call(one, { status: 'running' }, stranger.secret)).status, 403)
  assert.equal((await call(one, { status: 'sideways' })).status, 422)
  assert.equal((await call('PATCH /api/v1/releases/rel_none', { status: 'running' })).status, 404)
  const serve = () =>
    call('POST /api/v1/apps/strict/deploys', { definition: { app: 'strict' }, image: 'debian' })
  const beside = await serve()
  assert.equal(beside.status, 409)
  assert.match(String(beside.body['error']), /v1, started by .+@.+ is making the first machines/)
  assert.equal((await call(one, { status: 'failed' })).status, 200)
  const served = await serve()
  assert.equal(served.status, 201, JSON.stringify(served.body))
  const byCloud = `PATCH /api/v1/releases/${String(served.body['id'])}`
  assert.equal((await call(byCloud, { status: 'failed' })).status, 412)
})

test('builds: a number for an id, finished with the time it took, never in the way', async () => {
  await newApp('built')
  const made = await call('POST /api/v1/builds', {
    app_name: 'built',
    builder_type: 'buildkit',
    strategies_available: ['BuildKit'],
  })
  assert.equal(made.status, 200)
  assert.equal(typeof made.body['id'], 'number')
  const done = await call('POST /api/v1/builds/finish', {
    app_name: 'built',
    build_id: made.body['id'],
    status: 'completed',
    strategies_attempted: [],
    builder_meta: {},
    final_image: { id: '', tag: '', size_bytes: 0 },
    timings: {},
    logs: '',
  })
  assert.deepEqual([done.status, done.body['status']], [200, 'completed'])
  assert.equal(typeof done.body['wallclock_time_ms'], 'number')
  for (const build_id of [999_999, 10 ** 15, 'x', null]) {
    const none = await call('POST /api/v1/builds/finish', { app_name: 'built', build_id })
    assert.equal(none.status, 404)
  }
  const depot = await call('POST /api/v1/builds/depot_builder', { app_name: 'built' })
  assert.deepEqual([depot.status, depot.body['status']], [501, 'not_available_yet'])
})

test('managed Postgres: no clusters, and a clear word that none can be made', async () => {
  assert.deepEqual((await call('GET /api/v1/organizations/personal/postgres')).body, { data: [] })
  for (const line of [
    'POST /api/v1/organizations/personal/postgresv2',
    'GET /api/v1/postgres/abc',
    'GET /api/v1/postgresv2/abc/users',
    'POST /v1/postgres',
    'GET /v1/postgres/abc/users/u/credentials',
  ]) {
    const { status, body } = await call(line, line.startsWith('POST') ? {} : undefined)
    assert.deepEqual([status, body['status']], [501, 'not_available_yet'], line)
  }
})

test('ip_assignments: given, listed, taken back; what is not offered says so', async () => {
  await newApp('ips')
  const root = '/v1/apps/ips/ip_assignments'
  assert.deepEqual((await call(`GET ${root}`)).body, { ips: [] })
  const v6 = await call(`POST ${root}`, { type: 'v6', region: '', org_slug: '', network: '' })
  assert.equal(v6.status, 200)
  assert.match(String(v6.body['ip']), /^fd/)
  const shared = await call(`POST ${root}`, { type: 'shared_v4' })
  const again = await call(`POST ${root}`, { type: 'shared_v4' })
  assert.deepEqual(shared.body, again.body)
  assert.equal(shared.body['shared'], true)
  const flycast = await call(`POST ${root}`, { type: 'private_v6', service_name: 'db' })
  assert.match(String(flycast.body['ip']), /^fdaa:0:1:0:1::/)
  assert.equal(flycast.body['service_name'], 'db')
  for (const [body, status] of [
    [{ type: 'v4' }, 501],
    [{ type: 'v5' }, 422],
    [{}, 422],
    [{ type: 'v6', region: 'nowhere' }, 422],
    [{ type: 'private_v6', org_slug: 'nobody' }, 404],
  ] as const) {
    assert.equal((await call(`POST ${root}`, body)).status, status, JSON.stringify(body))
  }
  const gone = `DELETE ${root}/${encodeURIComponent(String(v6.body['ip']))}`
  assert.equal((await call(gone)).status, 200)
  assert.equal((await call(gone)).status, 404)
  assert.equal(((await call(`GET ${root}`)).body['ips'] as Body[]).length, 2)
})

test('ip_assignments: many at once get one shared address and different ones else', async () => {
  await newApp('rush')
  const root = 'POST /v1/apps/rush/ip_assignments'
  const types = Array.from({ length: 20 }, (_, i) => (i % 2 ? 'shared_v4' : 'v6'))
  const made = await Promise.all(types.map((type) => call(root, { type })))
  assert.ok(made.every(({ status }) => status === 200))
  assert.equal(new Set(made.map(({ body }) => body['ip'])).size, 11)
})

test('certificates: a hostname kept as a record, with what its owner must set up', async () => {
  await newApp('certs')
  const root = '/v1/apps/certs/certificates'
  assert.deepEqual((await call(`GET ${root}?limit=25`)).body, { certificates: [], total_count: 0 })
  await call('POST /v1/apps/certs/ip_assignments', { type: 'shared_v4' })
  const made = await call(`POST ${root}/acme`, { hostname: 'WWW.Example.com.' })
  assert.equal(made.status, 201)
  assert.equal(made.body['hostname'], 'www.example.com')
  assert.deepEqual([made.body['configured'], made.body['certificates']], [false, []])
  const requirements = made.body['dns_requirements'] as Body
  assert.deepEqual(
    [requirements['a'], requirements['cname']],
    [['127.0.0.1'], 'certs.hangar.localhost'],
  )
  await call(`POST ${root}/acme`, { hostname: 'www.example.com' })
  const list = await call(`GET ${root}`)
  assert.equal(list.body['total_count'], 1)
  assert.deepEqual((await call(`GET ${root}?filter=nothing`)).body['certificates'], [])
  assert.equal((await call(`POST ${root}/www.example.com/check`)).status, 200)
  for (const hostname of ['', 'a b.com', 'localhost', 'x'.repeat(300), 5, '-a.com']) {
    assert.equal((await call(`POST ${root}/acme`, { hostname })).status, 422, String(hostname))
  }
  assert.equal((await call(`POST ${root}/custom`, { hostname: 'a.com' })).status, 501)
  assert.equal((await call(`DELETE ${root}/www.example.com/custom`)).status, 404)
  assert.equal((await call(`DELETE ${root}/www.example.com`)).status, 200)
  assert.equal((await call(`GET ${root}/www.example.com`)).status, 404)
})

test('apps by role: a client deletes what it takes for a broken builder, so no other app may be shown', async () => {
  await newApp('plain')
  const role = 'remote-docker-builder'
  const query = `GET /v1/apps?app_role=${role}&org_slug=personal`
  assert.deepEqual((await call(query)).body, { total_apps: 0, apps: [] })
  const made = await call('POST /v1/apps', {
    name: 'builder',
    org_slug: 'personal',
    app_role_id: role,
  })
  assert.deepEqual([made.status, made.body['app_role']], [201, role])
  const found = (await call(query)).body['apps'] as Body[]
  assert.deepEqual(
    found.map((app) => app['name']),
    ['builder'],
  )
  const { body } = await call('POST /graphql', {
    query: `{ apps(role: "${role}") { nodes { name role { name } } } }`,
  })
  assert.deepEqual(body['data'], { apps: { nodes: [{ name: 'builder', role: { name: role } }] } })
})

test('what is not there yet says so with a code: secret keys', async () => {
  await newApp('keys')
  for (const line of [
    'GET /v1/apps/keys/secretkeys',
    'POST /v1/apps/keys/secretkeys/one/sign',
  ] as const) {
    const { status, body } = await call(line, line.startsWith('POST') ? {} : undefined)
    assert.deepEqual([status, body['status']], [501, 'not_available_yet'], line)
  }
  assert.equal((await call('GET /v1/apps/keys/secretkeys', undefined, 'none')).status, 401)
})

test('SEC-4: secrets as older clients and libraries set them, by a mutation', async () => {
  const app = await newApp('old-secrets')
  const change = async (name: string, rest: object) => {
    const kind = name === 'setSecrets' ? 'SetSecretsInput' : 'UnsetSecretsInput'
    const query = `mutation($input: ${kind}!) { ${name}(input: $input) { app { name } release { id version reason description user { id email name } evaluationId createdAt } } }`
    const { body } = await call('POST /graphql', {
      query,
      variables: { input: { appId: app, ...rest } },
    })
    return body as { data?: Record<string, unknown>; errors?: { message: string }[] }
  }
  const names = async () => {
    const { body } = await call(`GET /v1/apps/${app}/secrets`)
    return (body['secrets'] as { name: string }[]).map(({ name }) => name)
  }
  const set = await change('setSecrets', {
    secrets: [
      { key: 'A', value: '1' },
      { key: 'B', value: '2' },
    ],
  })
  assert.deepEqual(set.data?.['setSecrets'], { app: { name: app }, release: null })
  assert.deepEqual(await names(), ['A', 'B'])
  await change('unsetSecrets', { keys: ['A', 'NONE'] })
  assert.deepEqual(await names(), ['B'])
  await change('setSecrets', { secrets: [{ key: 'C', value: '3' }], replaceAll: true })
  assert.deepEqual(await names(), ['C'])
  const refused = await change('setSecrets', {
    secrets: [
      { key: 'D', value: '4' },
      { key: '1A', value: '5' },
    ],
  })
  assert.match(refused.errors?.[0]?.message ?? '', /secret name "1A"/)
  assert.deepEqual(await names(), ['C'])
})

test('SEC-20: a token that begins with FlyV1, in a script that writes Bearer before it', async () => {
  for (const scheme of ['Bearer', 'FlyV1', 'Bearer FlyV1', 'bearer flyv1']) {
    const { status } = await api.request('/v1/apps', {
      headers: { authorization: `${scheme} ${admin}` },
    })
    assert.equal(status, 200, scheme)
  }
})

test('MCH-91: nowhere to place: the regions that there are', async () => {
  const { status, body } = await call('POST /v1/platform/placements', { region: 'lhr' })
  assert.equal(status, 412)
  assert.match(String(body['error']), /no region of "lhr" has room.*regions of this cloud: ord/)
})

test('MCH-3: the lease of a machine that its holder has destroyed is not found, as the client looks for it', async () => {
  const app = await newApp('left-lease')
  const made = await call(`POST /v1/apps/${app}/machines`, { config: { image: 'nginx' } })
  const machine = `/v1/apps/${app}/machines/${String(made.body['id'])}`
  assert.equal((await call(`DELETE ${machine}?kill=true`)).status, 200)
  const fault = new Fault('not_found', 'machine lease not found')
  control.hosts[0]?.refuse.push({ match: /DELETE .*\/lease/, fault })
  const left = await call(`DELETE ${machine}/lease`)
  assert.equal(left.status, 404)
  assert.match(String(left.body['error']), /lease not found/)
  const never = await call(`DELETE /v1/apps/${app}/machines/none/lease`)
  assert.match(String(never.body['error']), /machine not found/)
})
