import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import type { Hono } from 'hono'
import { getApp } from '#control/apps/index.ts'
import { createToken } from '#control/auth/index.ts'
import {
  operatorToken,
  startTestControl,
  type FakeHost,
  type TestControl,
} from '#control/test-support.ts'
import type { Env } from './request.ts'
import { checkedApi } from './test-support.ts'

let control: TestControl
let api: Hono<Env>
let admin = ''

before(async () => {
  control = await startTestControl(['h1', 'h2'])
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
  return { status: answer.status, body: (await answer.json()) as Body }
}

async function newApp(name: string): Promise<string> {
  control.beat()
  assert.equal((await call('POST /v1/apps', { name, org_slug: 'personal' })).status, 201)
  return `/v1/apps/${name}/volumes`
}

/** Every key is in it: what the person did not say is null or empty. */
const createRequest = (fields: Body = {}): Body => ({
  name: 'data',
  region: 'ord',
  size_gb: 1,
  encrypted: true,
  require_unique_zone: true,
  unique_zone_app_wide: false,
  snapshot_retention: 5,
  auto_backup_enabled: null,
  fstype: null,
  snapshot_id: null,
  source_volume_id: null,
  compute: null,
  ...fields,
})

const forkRequest = (source: unknown): Body =>
  createRequest({
    region: '',
    size_gb: null,
    encrypted: null,
    snapshot_retention: null,
    source_volume_id: source,
    compute: { cpu_kind: 'shared', cpus: 1, memory_mb: 256 },
    compute_image: 'r/i:t',
  })

async function made(root: string, body: Body): Promise<Body> {
  const answer = await call(`POST ${root}`, body)
  assert.equal(answer.status, 200, JSON.stringify(answer.body))
  return answer.body
}

/** What the client's struct holds: another type than these is fatal to it. */
function assertVolume(volume: Body): void {
  for (const key of ['id', 'name', 'state', 'region', 'zone', 'created_at', 'host_status']) {
    assert.equal(typeof volume[key], 'string', key)
  }
  for (const key of ['size_gb', 'snapshot_retention']) assert.ok(Number.isInteger(volume[key]), key)
  for (const key of ['encrypted', 'auto_backup_enabled']) {
    assert.equal(typeof volume[key], 'boolean', key)
  }
  for (const key of ['attached_machine_id', 'attached_alloc_id']) {
    assert.ok(volume[key] === null || typeof volume[key] === 'string', key)
  }
  assert.ok(Number.isFinite(Date.parse(String(volume['created_at']))))
}

test('volumes create, get, list: with every key, null where nothing was said', async () => {
  const root = await newApp('make')
  const volume = await made(root, createRequest())
  assertVolume(volume)
  assert.deepEqual([volume['size_gb'], volume['host_status']], [1, 'ok'])
  assertVolume((await call(`GET ${root}/${String(volume['id'])}`)).body)
  const list = (await call(`GET ${root}`)).body as unknown as Body[]
  assert.deepEqual(
    list.map(({ id }) => id),
    [volume['id']],
  )
  const other = createRequest({ name: 'other', size_gb: 0 })
  assert.equal((await made(root, other))['size_gb'], 3, 'CONF-5')
  // What a client sends when it scales up.
  await call(`PUT ${root}/${String(volume['id'])}/extend`, { size_gb: 4 })
  assert.equal((await made(root, createRequest({ size_gb: 0 })))['size_gb'], 4)
  assert.equal((await made(root, createRequest({ size_gb: null })))['size_gb'], 3, 'CONF-5')
})

test('VOL-6: a client asks for unique zones with every volume: two zones, and a third volume all the same', async () => {
  const root = await newApp('zones')
  const zones: unknown[] = []
  for (let i = 0; i < 3; i++) zones.push((await made(root, createRequest()))['zone'])
  assert.deepEqual(new Set(zones), new Set(['0001', '0002']))
  assert.notEqual(zones[0], zones[1])
  const refused = await call(`POST ${root}`, createRequest({ unique_zone_app_wide: true }))
  assert.deepEqual([refused.status, refused.body['status']], [412, 'insufficient_capacity'])
  assert.match(String(refused.body['error']), /could not reserve resource for volume/)
})

test('volumes extend: the volume wrapped, with a boolean beside it', async () => {
  const root = await newApp('grow')
  const { id } = await made(root, createRequest())
  const grown = await call(`PUT ${root}/${String(id)}/extend`, { size_gb: 4 })
  assert.equal(grown.status, 200)
  assertVolume(grown.body['volume'] as Body)
  assert.deepEqual(
    [(grown.body['volume'] as Body)['size_gb'], grown.body['needs_restart']],
    [4, false],
  )
  for (const size_gb of [3, 501, null, '5', 4.5]) {
    const refused = await call(`PUT ${root}/${String(id)}/extend`, { size_gb })
    assert.deepEqual([refused.status, refused.body['status']], [422, 'invalid'], String(size_gb))
  }
  assert.equal((await call(`PUT ${root}/vol_none/extend`, { size_gb: 4 })).status, 404)
})

test('volumes update: a null stays as it is', async () => {
  const root = await newApp('change')
  const { id } = await made(root, createRequest())
  const one = `PUT ${root}/${String(id)}`
  await call(one, { snapshot_retention: 7, auto_backup_enabled: null })
  const { body } = await call(one, { snapshot_retention: null, auto_backup_enabled: false })
  assertVolume(body)
  assert.deepEqual([body['snapshot_retention'], body['auto_backup_enabled']], [7, false])
  for (const change of [
    { snapshot_retention: 0 },
    { snapshot_retention: 61 },
    { snapshot_retention: 'x' },
  ]) {
    assert.equal((await call(one, change)).status, 422, JSON.stringify(change))
  }
})

test('volumes destroy: the volume comes back, listed in a state that clients hide', async () => {
  const root = await newApp('away')
  const { id } = await made(root, createRequest())
  const gone = await call(`DELETE ${root}/${String(id)}`)
  assert.equal(gone.status, 200)
  assertVolume(gone.body)
  const list = (await call(`GET ${root}`)).body as unknown as Body[]
  assert.deepEqual(
    list.map((volume) => [volume['id'], volume['state']]),
    [[id, 'pending_destroy']],
  )
  assert.equal((await call(`PUT ${root}/${String(id)}/extend`, { size_gb: 4 })).status, 412)
})

test('snapshots: taken without a body, newest last, listed for a destroyed volume and in GraphQL with text for a size', async () => {
  const root = await newApp('snaps')
  const { id } = await made(root, createRequest())
  const one = `${root}/${String(id)}`
  assert.deepEqual((await call(`GET ${one}/snapshots`)).body, [])
  const taken = [await call(`POST ${one}/snapshots`), await call(`POST ${one}/snapshots`)]
  assert.deepEqual(
    taken.map(({ status }) => status),
    [200, 200],
  )
  await call(`DELETE ${one}`)
  const list = (await call(`GET ${one}/snapshots`)).body as unknown as Body[]
  assert.deepEqual(
    list.map((snapshot) => snapshot['id']),
    taken.map(({ body }) => body['id']),
  )
  for (const snapshot of list) {
    assert.match(String(snapshot['id']), /^vs_\w{16}$/)
    for (const key of ['size', 'volume_size', 'retention_days']) {
      assert.ok(Number.isInteger(snapshot[key]), key)
    }
    for (const key of ['digest', 'status']) assert.equal(typeof snapshot[key], 'string', key)
    assert.ok(Number.isFinite(Date.parse(String(snapshot['created_at']))))
  }
  const { body } = await call('POST /graphql', {
    query:
      'query($id: ID!) { volume(id: $id) { ... on Volume { app { name } state snapshots { nodes { id size digest createdAt retentionDays } } } } }',
    variables: { id },
  })
  const volume = (body['data'] as Body)['volume'] as Body
  assert.deepEqual([volume['app'], volume['state']], [{ name: 'snaps' }, 'pending_destroy'])
  const { nodes } = volume['snapshots'] as { nodes: Body[] }
  assert.deepEqual(
    nodes.map(({ size, retentionDays }) => [size, retentionDays]),
    [
      ['4096', 5],
      ['4096', 5],
    ],
  )
  assert.equal((await call(`GET ${root}/vol_none/snapshots`)).status, 404)
  assert.equal((await call(`POST ${root}/vol_none/snapshots`)).status, 404)
})

test('VOL-15: a volume from a snapshot whose volume is gone is restoring, then created', async () => {
  const root = await newApp('restore')
  const source = await made(root, createRequest())
  const one = `${root}/${String(source['id'])}`
  const { body: snapshot } = await call(`POST ${one}/snapshots`)
  await call(`DELETE ${one}`)
  const restored = await made(root, createRequest({ name: 'test', snapshot_id: snapshot['id'] }))
  assertVolume(restored)
  assert.equal(restored['state'], 'restoring')
  await call(`GET ${root}/${String(restored['id'])}`)
  const { body } = await call(`GET ${root}/${String(restored['id'])}`)
  assert.equal(body['state'], 'created')
  for (const [fields, status] of [
    [{ snapshot_id: 'vs_none' }, 404],
    [{ snapshot_id: '../volumes' }, 404],
    [{ snapshot_id: 5 }, 422],
    [{ snapshot_id: snapshot['id'], source_volume_id: source['id'] }, 422],
  ] as const) {
    const refused = await call(`POST ${root}`, createRequest(fields))
    assert.equal(refused.status, status, JSON.stringify(refused.body))
  }
})

test('VOL-13: a fork as the client asks for it has another zone, and its source as it was', async () => {
  const root = await newApp('fork')
  const source = await made(root, createRequest({ size_gb: 2, snapshot_retention: 9 }))
  const fork = await made(root, forkRequest(source['id']))
  assertVolume(fork)
  assert.notEqual(fork['zone'], source['zone'])
  const kept = ['name', 'size_gb', 'region', 'snapshot_retention']
  assert.deepEqual(
    kept.map((key) => fork[key]),
    kept.map((key) => source[key]),
  )
})

test('a token for one app copies nothing of another, by snapshot or by volume', async () => {
  const root = await newApp('owner')
  const source = await made(root, createRequest())
  const { body: snapshot } = await call(`POST ${root}/${String(source['id'])}/snapshots`)
  const other = await newApp('thief')
  const app = await getApp(control.ctx, 'thief')
  const { secret } = await createToken(control.ctx, {
    name: 'deploy',
    email: 'd@x',
    scope: { profile: 'deploy', org_id: app.org.id, app_id: app.id },
  })
  assert.equal((await call(`POST ${other}`, createRequest(), secret)).status, 200)
  for (const fields of [{ snapshot_id: snapshot['id'] }, { source_volume_id: source['id'] }]) {
    const refused = await call(`POST ${other}`, createRequest(fields), secret)
    assert.equal(refused.status, 403, JSON.stringify(refused.body))
    assert.equal((await call(`POST ${other}`, createRequest(fields))).status, 200)
  }
  assert.equal(
    (await call(`GET ${root}/${String(source['id'])}/snapshots`, undefined, secret)).status,
    403,
  )
})

test('VOL-18: a host that is away is a 504 with its code, and only for its own volumes', async () => {
  const root = await newApp('silent')
  const first = await made(root, createRequest())
  const second = await made(root, createRequest())
  const host = control.hosts.find((one) => one.volumes.has(String(first['id']))) as FakeHost
  await host.setReachable(false)
  try {
    const away = `${root}/${String(first['id'])}`
    for (const [line, body] of [
      [`PUT ${away}/extend`, { size_gb: 4 }],
      [`PUT ${away}`, { snapshot_retention: 9 }],
      [`POST ${away}/snapshots`, undefined],
      [`GET ${away}/snapshots`, undefined],
      [`DELETE ${away}`, undefined],
    ] as const) {
      const refused = await call(line, body)
      assert.deepEqual([refused.status, refused.body['status']], [504, 'host_unreachable'], line)
    }
    assert.equal((await call(`GET ${away}`)).body['host_status'], 'unreachable')
    const there = `${root}/${String(second['id'])}`
    assert.equal((await call(`PUT ${there}/extend`, { size_gb: 4 })).status, 200)
  } finally {
    await host.setReachable(true)
  }
})
