import assert from 'node:assert/strict'
import { statSync, readFileSync } from 'node:fs'
import http from 'node:http'
import type { AddressInfo } from 'node:net'
import { after, before, test } from 'node:test'
import { serve, type ServerType } from '@hono/node-server'
import { createToken, ensureFirstToken } from '#control/auth/index.ts'
import { ensureOrg } from '#control/orgs/index.ts'
import {
  operatorToken,
  startTestControl,
  type FakeHost,
  type TestControl,
} from '#control/test-support.ts'
import { eventually } from '#sys/test-support.ts'
import { checkedApi } from './test-support.ts'

let control: TestControl
let server: ServerType
let base = ''
let admin = ''
const host = () => control.hosts[0] as FakeHost

before(async () => {
  control = await startTestControl()
  admin = await operatorToken(control.ctx)
  server = serve({ fetch: checkedApi(control.ctx).fetch, hostname: '127.0.0.1', port: 0 })
  await new Promise((resolve) => server.once('listening', resolve))
  base = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
})
after(async () => {
  ;(server as http.Server).closeAllConnections()
  await new Promise((resolve) => server.close(resolve))
  await control.close()
})

interface Answer {
  status: number
  headers: Headers
  body: { [key: string]: unknown; error?: string; status?: string }
}

async function call(
  line: string,
  options: { body?: unknown; token?: string; headers?: Record<string, string> } = {},
): Promise<Answer> {
  const [method = 'GET', path = '/'] = line.split(' ')
  const text = typeof options.body === 'string' ? options.body : JSON.stringify(options.body)
  const answer = await fetch(base + path, {
    method,
    headers: { authorization: `Bearer ${options.token ?? admin}`, ...options.headers },
    ...(options.body === undefined ? {} : { body: text }),
  })
  const body = await answer.text()
  return {
    status: answer.status,
    headers: answer.headers,
    body: (body === '' ? {} : JSON.parse(body)) as Answer['body'],
  }
}

async function streamsBecome(count: number): Promise<void> {
  await eventually(`${count} streams`, () => host().streams === count)
}

async function newApp(name: string): Promise<string> {
  const made = await call('POST /v1/apps', { body: { app_name: name, org_slug: 'personal' } })
  assert.equal(made.status, 201, JSON.stringify(made.body))
  return name
}

test('an update by PUT is no door; the answer says which is', async () => {
  const { status, body } = await call('PUT /v1/apps/any/machines/d891234', { body: {} })
  assert.equal(status, 404)
  assert.match(body.error ?? '', /no PUT .* here; a machine is updated with POST at this address/)
  assert.doesNotMatch((await call('PUT /v1/apps/any')).body.error ?? '', /POST/)
})

test('MCH-1: every answer carries fly-request-id, also refusals', async () => {
  for (const line of ['GET /v1/apps', 'GET /nowhere', 'GET /v1/apps/none-such']) {
    const { headers } = await call(line)
    assert.match(headers.get('fly-request-id') ?? '', /^[0-9A-HJKMNP-TV-Z]{26}$/)
  }
  assert.equal((await call('GET /v1/apps', { token: 'nonsense' })).status, 401)
})

test('SEC-20: Bearer and FlyV1, several tokens separated by commas', async () => {
  for (const authorization of [`FlyV1 ${admin}`, `FlyV1 fm2_x,${admin}`, `bearer ${admin}`]) {
    assert.equal((await call('GET /v1/apps', { headers: { authorization } })).status, 200)
  }
  for (const authorization of ['', 'Basic eDp5', `Bearer `, `Bearer x${admin}`, admin]) {
    const { status, body } = await call('GET /v1/apps', { headers: { authorization } })
    assert.equal(status, 401)
    assert.equal(body.status, 'unauthorized')
  }
})

test('the first token is made once, mode 0600, and is kept while it verifies', async () => {
  const file = control.ctx.settings.first_token_file
  assert.equal(statSync(file).mode & 0o777, 0o600)
  await ensureFirstToken(control.ctx)
  assert.equal(readFileSync(file, 'utf8').trim(), admin)
  const rows = await control.ctx.db.selectFrom('tokens').selectAll().execute()
  assert.ok(rows.every((row) => !row.hash.toString('latin1').includes(admin)))
})

test('MCH-2: 404 = the name is free, 403 = it is taken elsewhere, 422 name_taken', async () => {
  const { ctx } = control
  const other = await ensureOrg(ctx, 'other', 'Other')
  const stranger = await createToken(ctx, {
    name: 't',
    email: 'stranger@x',
    scope: { profile: 'org', org_id: other.id },
  })
  await newApp('shop')
  assert.equal((await call('GET /v1/apps/free-name')).status, 404)
  assert.equal((await call('GET /v1/apps/shop', { token: stranger.secret })).status, 403)
  const again = await call('POST /v1/apps', { body: { name: 'shop' } })
  assert.deepEqual([again.status, again.body.status], [422, 'name_taken'])
  assert.match(again.body.error ?? '', /Name has already been taken/)
  const listed = await call('GET /v1/apps', { token: stranger.secret })
  assert.deepEqual(listed.body, { total_apps: 0, apps: [] })
  for (const line of ['GET /v1/apps/shop/machines', 'POST /v1/apps/shop/secrets']) {
    assert.equal(
      (await call(line, { token: stranger.secret, ...(line[0] === 'P' ? { body: {} } : {}) }))
        .status,
      403,
    )
  }
})

test('§8.1: a deploy token touches its app only, a readonly one changes nothing', async () => {
  const { ctx } = control
  await newApp('mine')
  await newApp('yours')
  const { id, org_id } = await ctx.db
    .selectFrom('apps')
    .select(['id', 'org_id'])
    .where('name', '=', 'mine')
    .executeTakeFirstOrThrow()
  const scopes = {
    deploy: { profile: 'deploy', org_id, app_id: id },
    readonly: { profile: 'readonly', org_id },
  } as const
  const deploy = await createToken(ctx, { name: 'd', email: 'd@x', scope: scopes.deploy })
  const readonly = await createToken(ctx, { name: 'r', email: 'r@x', scope: scopes.readonly })
  const body = { values: { A: 'b' } }
  assert.equal(
    (await call('POST /v1/apps/mine/secrets', { token: deploy.secret, body })).status,
    200,
  )
  assert.equal((await call('GET /v1/apps/yours', { token: deploy.secret })).status, 403)
  assert.equal((await call('GET /v1/apps/yours', { token: readonly.secret })).status, 200)
  assert.equal(
    (await call('POST /v1/apps/yours/secrets', { token: readonly.secret, body })).status,
    403,
  )
  assert.equal(
    (await call('POST /v1/apps', { token: deploy.secret, body: { name: 'x' } })).status,
    403,
  )
  assert.equal(
    (await call('GET /v1/apps/mine/secrets?show_secrets=true', { token: readonly.secret })).status,
    403,
  )
})

test('bad input is told with its path; a body that is not JSON is 400; one too large is 413', async () => {
  const app = await newApp('inputs')
  const path = `POST /v1/apps/${app}/machines`
  const wrong = await call(path, { body: { config: { image: 'x', guest: { cpus: 'two' } } } })
  assert.deepEqual([wrong.status, wrong.body.status], [422, 'invalid'])
  assert.match(wrong.body.error ?? '', /config\.guest\.cpus/)
  assert.equal((await call(path, { body: '{"config":' })).status, 400)
  assert.equal(
    (await call(path, { body: JSON.stringify('x'.repeat(11 * 1024 * 1024)) })).status,
    413,
  )
  assert.equal((await call('POST /v1/apps', { body: { name: 'Bad_Name' } })).status, 422)
  assert.equal((await call(`GET /v1/apps/${app}/machines?state=flying`)).status, 400)
})

test('what no database, program or message can hold is refused, and never our own fault', async () => {
  const app = await newApp('oddities')
  const create = `POST /v1/apps/${app}/machines`
  const config = (more: object) => ({ body: { config: { image: 'x', ...more } } })
  for (const text of ['\u0000', 'half \ud800']) {
    const { status, body } = await call(create, config({ env: { KEY: text } }))
    assert.deepEqual([status, body.status], [422, 'invalid'])
    assert.match(body.error ?? '', /KEY/)
  }
  assert.equal((await call(create, config({ env: { A: 'é 😀 \\u0000' } }))).status, 200)
  const nested = `{"config":{"image":"x","deep":${'['.repeat(5_000)}${']'.repeat(5_000)}}}`
  assert.equal((await call(create, { body: nested })).status, 422)
  assert.equal((await call(create, config({ junk: 'x'.repeat(3_000_000) }))).status, 413)
  const services = Array.from({ length: 5_000 }, () => ({ protocol: 'tcp', internal_port: 80 }))
  assert.equal((await call(create, config({ services }))).status, 413)
  assert.equal((await call('GET /v1/apps/%00/machines')).status, 400)
  const secrets = `POST /v1/apps/${app}/secrets`
  assert.equal((await call(secrets, { body: '{"values":{"__proto__":"x"}}' })).status, 422)
})

test('MCH-2: what is our own fault hides its insides and names the request', async () => {
  const app = await newApp('inside')
  const made = await call(`POST /v1/apps/${app}/machines`, { body: { config: { image: 'x' } } })
  const id = String(made.body['id'])
  Object.assign(host().machines.get(id) as object, { updated_at: undefined, events: 5 })
  const { body, headers, status } = await call(`GET /v1/apps/${app}/machines/${id}`)
  assert.equal(status, 500)
  assert.match(body.error ?? '', new RegExp(headers.get('fly-request-id') as string))
  assert.doesNotMatch(JSON.stringify(body), /\.ts|slice/)
})

test('a machine’s whole life over the REST: create, lease, update, verbs, metadata, exec, wait, destroy', async () => {
  const app = await newApp('life')
  const root = `/v1/apps/${app}/machines`
  const config = { image: 'debian', metadata: { fly_process_group: 'web' }, zeta: 1, alpha: null }
  const made = await call(`POST ${root}`, { body: { config, lease_ttl: 30, region: 'ord' } })
  assert.equal(made.status, 200)
  assert.ok(made.body['nonce'])
  const one = `${root}/${String(made.body['id'])}`
  const read = await call(`GET ${one}`)
  assert.deepEqual(Object.keys(read.body['config'] as object), Object.keys(config))
  assert.ok(!('nonce' in read.body), 'MCH-55: no nonce in a read')
  assert.ok(!JSON.stringify((await call(`GET ${root}`)).body).includes('nonce'))

  const lease = await call(`POST ${one}/lease?ttl=13`)
  assert.equal(lease.status, 201)
  const data = lease.body['data'] as { nonce: string; owner: string }
  assert.equal(data.owner, 'admin@hangar.localhost')
  const headers = { 'fly-machine-lease-nonce': data.nonce }
  const refreshed = await call(`POST ${one}/lease`, { headers, body: { ttl: 20 } })
  assert.equal((refreshed.body['data'] as { nonce: string }).nonce, data.nonce)
  const held = await call(`GET ${one}/lease`)
  assert.ok(!('nonce' in (held.body['data'] as object)), 'MCH-55: no nonce in a read')

  const updated = await call(`POST ${one}`, { headers, body: { config: { image: 'b' } } })
  assert.notEqual(updated.body['instance_id'], made.body['instance_id'])
  const started = await call(`POST ${one}/start`)
  assert.deepEqual(started.body, {
    message: '',
    status: 'ok',
    previous_state: 'started',
    migrated: false,
    new_host: '',
    ok: true,
  })
  for (const verb of ['stop', 'restart', 'suspend', 'cordon', 'uncordon', 'signal']) {
    const { status, body } = await call(`POST ${one}/${verb}`, { body: { timeout: '5s' } })
    assert.deepEqual([verb, status, body['ok']], [verb, 200, true])
  }
  assert.equal((await call(`GET ${one}/wait?state=stopped&timeout=1`)).status, 200)
  assert.equal((await call(`GET ${one}/wait?state=started&timeout=1`)).status, 408)
  assert.equal((await call(`GET ${one}/wait?state=odd`)).status, 400)

  assert.equal((await call(`POST ${one}/metadata/a`, { body: { value: 'b' } })).status, 204)
  assert.deepEqual((await call(`GET ${one}/metadata`)).body, { a: 'b' })
  assert.equal((await call(`DELETE ${one}/metadata/a`)).status, 204)
  assert.equal((await call(`GET ${one}/metadata/toString`)).status, 404)
  const exec = await call(`POST ${one}/exec`, { body: { cmd: 'ls -l', timeout: 5 } })
  assert.equal(exec.body['exit_code'], 0)
  assert.equal((await call(`POST ${one}/exec`, { body: {} })).status, 422)
  for (const what of ['events', 'versions', 'ps']) {
    assert.equal((await call(`GET ${one}/${what}`)).status, 200)
  }
  assert.equal((await call(`DELETE ${one}?force=true`)).status, 200)
  assert.equal((await call(`GET ${one}`)).body['state'], 'destroyed')
  assert.equal((await call(`GET ${one}/wait?state=destroyed`)).status, 200)
  const missing = await call(`GET ${root}/ffffffffffffff`)
  assert.equal(missing.status, 404)
  assert.match(missing.body.error ?? '', /machine not found/)
})

test('list filters: region, state, metadata, include_deleted', async () => {
  const app = await newApp('filters')
  const root = `/v1/apps/${app}/machines`
  const make = async (metadata: Record<string, string>, skip_launch: boolean) =>
    (await call(`POST ${root}`, { body: { config: { image: 'x', metadata }, skip_launch } })).body[
      'id'
    ]
  const a = await make({ role: 'a' }, false)
  const b = await make({ role: 'b' }, true)
  const ids = async (query: string) =>
    ((await call(`GET ${root}?${query}`)).body as unknown as { id: string }[]).map(({ id }) => id)
  assert.deepEqual(await ids('metadata.role=b'), [b])
  assert.deepEqual(await ids('state=started'), [a])
  assert.deepEqual(await ids('region=fra'), [])
  await call(`DELETE ${root}/${String(a)}?kill=true`)
  assert.deepEqual(await ids(''), [b])
  assert.deepEqual(await ids('include_deleted=true'), [a, b])
})

test('SEC-1, SEC-4, SEC-7: secrets are set, listed by digest, shown on request, deleted', async () => {
  const app = await newApp('secrets')
  const root = `/v1/apps/${app}/secrets`
  const set = await call(`POST ${root}`, { body: { values: { A: 'one', B: 'two' } } })
  assert.equal(set.body['version'], 1)
  assert.ok(!JSON.stringify(set.body).includes('two'))
  const digests = (answer: Answer) =>
    Object.fromEntries(
      (answer.body['secrets'] as { name: string; digest: string }[]).map((s) => [s.name, s.digest]),
    )
  const changed = await call(`POST ${root}`, { body: { values: { A: 'three', B: 'two' } } })
  assert.equal(changed.body['version'], 2)
  assert.notEqual(digests(changed)['A'], digests(set)['A'])
  assert.equal(digests(changed)['B'], digests(set)['B'])
  const same = await call(`POST ${root}`, { body: { values: { A: 'three', NONE: null } } })
  assert.equal(same.body['version'], 2, 'nothing changed, so no new version')
  assert.deepEqual(digests(same), digests(changed))
  const shown = await call(`GET ${root}?show_secrets=true`)
  assert.match(JSON.stringify(shown.body), /"value":"three"/)
  assert.equal((await call(`GET ${root}?min_version=9`)).status, 412)
  for (const name of ['FLY_X', '1A', 'A-B', '']) {
    const refused = await call(`POST ${root}`, { body: { values: { [name]: 'x', OK: 'y' } } })
    assert.equal(refused.status, 422)
    assert.match(refused.body.error ?? '', new RegExp(`secret name "${name}"`))
  }
  assert.equal((await call(`DELETE ${root}/A`)).body['version'], 3)
  assert.equal((await call(`DELETE ${root}/A`)).status, 404)
  await call(`POST ${root}`, { body: { values: { B: null } } })
  assert.deepEqual((await call(`GET ${root}`)).body['secrets'], [])
})

test('VOL-17: volumes are made, changed, listed and destroyed', async () => {
  const app = await newApp('volumes')
  const root = `/v1/apps/${app}/volumes`
  const body = { name: 'data', region: 'ord', size_gb: 1, snapshot_id: null, compute: null }
  const made = await call(`POST ${root}`, { body })
  assert.match(String(made.body['id']), /^vol_[0-9a-z]{16}$/)
  const restored = await call(`POST ${root}`, { body: { ...body, snapshot_id: 'vs_1' } })
  assert.equal(
    restored.status,
    404,
    'a snapshot that is not there, and no empty volume in its place',
  )
  const changed = await call(`PUT ${root}/${String(made.body['id'])}`, {
    body: { snapshot_retention: 9 },
  })
  assert.equal(changed.body['snapshot_retention'], 9)
  const listed = (await call(`GET ${root}`)).body as unknown as { snapshot_retention: number }[]
  assert.deepEqual(
    listed.map((one) => one.snapshot_retention),
    [9],
  )
  assert.equal((await call(`POST ${root}`, { body: { name: 'Bad Name' } })).status, 422)
  const gone = await call(`DELETE ${root}/${String(made.body['id'])}`)
  assert.equal(gone.body['state'], 'pending_destroy')
  const kept = await call(`GET ${root}/${String(made.body['id'])}`)
  assert.equal(kept.body['state'], 'pending_destroy', 'until its host has removed it')
})

test('§9, MCH-91: regions with capitals, and placements that are never empty', async () => {
  const regions = await call('GET /v1/platform/regions')
  assert.equal(regions.body['Nearest'], 'ord')
  const [ord] = regions.body['Regions'] as { code: string; geo_region: string }[]
  assert.deepEqual([ord?.code, ord?.geo_region], ['ord', 'north_america'])
  const body = { region: '[fra],any', count: 2, compute: { cpus: 1, memory_mb: 256 } }
  const placed = await call('POST /v1/platform/placements', { body })
  assert.deepEqual(placed.body['Regions'], [{ Region: 'ord', Count: 2, Concurrency: 2 }])
  const full = await call('POST /v1/platform/placements', { body: { region: 'ord', count: 900 } })
  assert.deepEqual([full.status, full.body.status], [412, 'insufficient_capacity'])
})

test('Hangar’s own: viewer, status, images, logs of both kinds; a follower that leaves ends the stream behind it', async () => {
  const viewer = await call('GET /api/v1/viewer')
  assert.equal(viewer.body['email'], 'admin@hangar.localhost')
  const status = await call('GET /api/v1/status')
  assert.equal((status.body['hosts'] as { reachable: boolean }[])[0]?.reachable, true)
  const image = await call('POST /api/v1/images/inspect', { body: { image: 'debian' } })
  assert.equal(image.body['repository'], 'debian')
  const own = `${control.ctx.settings.registry_host}/none:1`
  assert.equal((await call('POST /api/v1/images/inspect', { body: { image: own } })).status, 404)

  const app = await newApp('logs')
  await call(`POST /v1/apps/${app}/machines`, { body: { config: { image: 'x' } } })
  const line = {
    ns: '5',
    timestamp: 't',
    app,
    region: 'ord',
    instance: 'i',
    level: 'info',
    provider: 'app',
    message: 'hello',
  }
  host().logs = [JSON.stringify(line)]
  const polled = await call(`GET /api/v1/apps/${app}/logs`)
  assert.deepEqual(polled.body['meta'], { next_token: '5' })
  const entry = (polled.body['data'] as { attributes: { message: string } }[])[0]
  assert.equal(entry?.attributes.message, 'hello')
  const leave = new AbortController()
  const stream = await fetch(`${base}/api/v1/apps/${app}/log-stream?follow=true`, {
    headers: { authorization: `Bearer ${admin}` },
    signal: leave.signal,
  })
  const reader = stream.body?.getReader()
  const first = await reader?.read()
  assert.deepEqual(JSON.parse(Buffer.from(first?.value ?? []).toString('utf8')), line)
  await streamsBecome(1)
  leave.abort()
  await streamsBecome(0)
  host().logs = []
})

test('an app that is deleted frees its name at once, and its machines are gone', async () => {
  const app = await newApp('again')
  const made = await call(`POST /v1/apps/${app}/machines`, { body: { config: { image: 'x' } } })
  assert.equal((await call(`DELETE /v1/apps/${app}?force=true`)).status, 202)
  assert.equal(host().machines.get(String(made.body['id']))?.state, 'destroyed')
  assert.equal((await call(`GET /v1/apps/${app}`)).status, 404)
  await newApp('again')
  assert.deepEqual((await call(`GET /v1/apps/${app}/machines?include_deleted=true`)).body, [])
})

test('releases: none yet is an empty list and no definition', async () => {
  const app = await newApp('releases')
  assert.deepEqual((await call(`GET /api/v1/apps/${app}/releases`)).body, { releases: [] })
  assert.equal((await call(`GET /api/v1/apps/${app}/definition`)).status, 404)
  assert.equal((await call(`GET /api/v1/apps/${app}/releases/rel_x/progress`)).status, 404)
})
