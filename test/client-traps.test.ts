import assert from 'node:assert/strict'
import http from 'node:http'
import type { AddressInfo } from 'node:net'
import { test, type TestContext } from 'node:test'
import { Fault, faultCodes } from '#core/fault.ts'
import type { Machine, MachineEvent } from '#spec/machine.ts'
import { checkedApi } from '#api/test-support.ts'
import { hangar } from '#cli/test-support.ts'
import type { TestHost } from '#host/testing.ts'
import { eventually } from '#sys/test-support.ts'
import { announceHost, callerOf, openRealHost, type Answer } from './support/real-host.ts'

/**
 * What clients of the Machines API trip over without a word, over a real control and a real host, of which only the
 * containers are fakes. Held elsewhere:
 *
 * - src/cli/commands/flyctl-wrapper.test.ts: every address that the client has is the cloud's, its tracing too.
 * - src/api/client-doors.test.ts: a release is wrapped when made and bare when moved, its user is text; a build is
 *   answered 200, a numeric id is a number; who looks for broken builders finds no other app; what builds elsewhere
 *   and managed databases are refused with a code.
 * - src/api/sessions.test.ts: a login is answered 201.
 * - src/api/graphql/graphql.test.ts: always 200; numeric ids of organizations are text; sizes of images are digits;
 *   an unknown image says `Unknown repository`; a release has an object for its definition; tunnels are refused with
 *   a code, never answered with empty keys and addresses.
 * - src/api/client-volumes.test.ts: destroyed volumes are in a state that clients hide; `host_status` is `ok`.
 * - src/api/api.test.ts: a deleted app frees its name at once, 404 is free and 403 is taken.
 * - src/api/names.test.ts, src/cloud/client-network.test.ts: a public name has as many addresses as clients count.
 * - src/spec/flatten.test.ts: machines that the cloud makes carry the metadata without which clients overlook them.
 */

interface Cloud {
  host: TestHost
  token: string
  call: (line: string, body?: unknown, nonce?: string) => Promise<Answer>
}

async function startCloud(t: TestContext): Promise<Cloud> {
  const { ctx, host, token } = await openRealHost(t)
  announceHost(t, { ctx, host })
  return { host, token, call: callerOf(checkedApi(ctx), token) }
}

/** The path of the app's machines. */
async function newApp({ call }: Cloud, name: string): Promise<string> {
  assert.equal((await call('POST /v1/apps', { app_name: name, org_slug: 'personal' })).status, 201)
  return `/v1/apps/${name}/machines`
}

/** The path of a new machine, with what the create answered. */
async function newMachine(
  { call }: Cloud,
  root: string,
  { config = {}, ...input }: { config?: object; [field: string]: unknown } = {},
) {
  const made = await call(`POST ${root}`, { config: { image: 'one', ...config }, ...input })
  assert.equal(made.status, 200, made.text)
  const machine = made.body as unknown as Machine
  return { machine, one: `${root}/${machine.id}` }
}

const read = async ({ call }: Cloud, one: string) =>
  (await call(`GET ${one}`)).body as unknown as Machine

async function reaches({ call }: Cloud, one: string, query: string): Promise<void> {
  const waited = await call(`GET ${one}/wait?timeout=60&${query}`)
  assert.equal(waited.status, 200, `${query}: ${waited.text}`)
}

const assertNewestFirst = (events: MachineEvent[]) => {
  const times = events.map(({ timestamp }) => timestamp)
  assert.deepEqual(
    times,
    times.toSorted((a, b) => b - a),
  )
}

test('what clients trip over', async (t) => {
  const cloud = await startCloud(t)
  for (const [name, behaviour] of Object.entries(behaviours)) {
    await t.test(name, (own) => behaviour(cloud, own))
  }
})

const behaviours: Record<string, (cloud: Cloud, t: TestContext) => Promise<void>> = {
  'the nonce of a lease is in the answer to the create that took it, and in no read': nonceOnce,
  'a lease asked for with its nonce is kept: the same nonce, a later end': leaseKept,
  'no refusal has a status that clients take for a passing one and send again': refusalsLast,
  'a machine made to rest comes to rest, and settled is said of rest only': madeToRest,
  'a destroyed machine can be read, with how its command ended': destroyedReadable,
  'events are newest first over a whole life': eventsInOrder,
  'checks that passed for the old version say nothing of the new one': checksAnew,
  'a config comes back as it was sent, with nothing put into it but the size': configEchoed,
  'the private address has all of its eight groups': eightGroups,
  'fields that nobody knows are taken and left alone': unknownFields,
  'both spellings count: name and app_name, force and kill, instance_id and version': spellings,
  'a hundred polls in a second are all answered': manyPolls,
  'logs of an app without lines are answered at once, with none': noLines,
  'tokens are not of the kind that clients open and drop': opaqueTokens,
  'what a client does unasked is switched off, and nothing says continuous integration':
    quietClient,
}

async function nonceOnce(cloud: Cloud): Promise<void> {
  const root = await newApp(cloud, 'nonce')
  const { machine, one } = await newMachine(cloud, root, { lease_ttl: 60 })
  const nonce = machine.nonce ?? ''
  assert.notEqual(nonce, '')
  const unleased = await newMachine(cloud, root)
  assert.ok(!('nonce' in unleased.machine), 'there is no lease')
  const config = { image: 'two' }
  for (const [line, body] of [
    [`GET ${one}`],
    [`GET ${root}`],
    [`GET ${root}?include_deleted=true`],
    [`GET ${one}/lease`],
    [`GET ${one}/events`],
    [`GET ${one}/versions`],
    [`POST ${one}`, { config }],
  ] as const) {
    const { status, text } = await cloud.call(line, body, body && nonce)
    assert.equal(status, 200, `${line}: ${text}`)
    assert.ok(!text.includes('nonce') && !text.includes(nonce), `${line}: ${text}`)
  }
}

async function leaseKept(cloud: Cloud): Promise<void> {
  const { one } = await newMachine(cloud, await newApp(cloud, 'lease'))
  type Lease = { nonce: string; expires_at: number; version: string }
  const lease = async (ttl: number, nonce?: string) => {
    const answer = await cloud.call(`POST ${one}/lease?ttl=${ttl}`, undefined, nonce)
    assert.equal(answer.status, 201, answer.text)
    return answer.body['data'] as Lease
  }
  const first = await lease(30)
  const second = await lease(90, first.nonce)
  assert.equal(second.nonce, first.nonce)
  assert.ok(second.expires_at >= first.expires_at + 55, JSON.stringify([first, second]))
  // Another version here makes a client read the machine again.
  assert.equal(second.version, (await read(cloud, one)).instance_id)
  assert.equal((await cloud.call(`POST ${one}/lease?ttl=30`)).status, 409, 'others are refused')
  assert.equal((await cloud.call(`DELETE ${one}/lease`, undefined, first.nonce)).status, 200)
  assert.equal((await cloud.call(`GET ${one}/lease`)).status, 404)
}

async function refusalsLast(cloud: Cloud): Promise<void> {
  for (const code of faultCodes) {
    assert.ok(![502, 503].includes(new Fault(code, '').status), code)
  }
  const root = await newApp(cloud, 'refuse')
  const { one } = await newMachine(cloud, root, { lease_ttl: 60 })
  const config = { image: 'one' }
  for (const [line, body] of [
    ['GET /v1/apps/nobody', undefined],
    ['POST /v1/apps', { app_name: 'refuse', org_slug: 'personal' }],
    ['POST /v1/apps', { app_name: 'other', org_slug: 'nobody' }],
    [`GET ${root}/none`, undefined],
    [`POST ${root}`, {}],
    [`POST ${root}`, { config: { image: 'missing' } }],
    [`POST ${root}`, { config, region: 'nowhere' }],
    [`POST ${root}`, { config: { ...config, guest: { cpus: 16, memory_mb: 10 ** 9 } } }],
    [`POST ${root}`, { config: { ...config, mounts: [{ volume: 'vol_none', path: '/d' }] } }],
    [`POST ${one}`, { config }],
    [`POST ${one}/stop`, {}],
    [`POST ${one}/lease`, undefined],
    [`DELETE ${one}?kill=true`, undefined],
    [`GET ${one}/wait?state=odd`, undefined],
    ['POST /v1/apps/refuse/volumes', { name: 'data', region: 'nowhere' }],
    ['POST /v1/apps/refuse/ip_assignments', { type: 'v4' }],
    ['POST /v1/apps/refuse/certificates/acme', { hostname: '' }],
    ['POST /v1/platform/placements', { region: 'nowhere' }],
    ['POST /api/v1/releases', { app_name: 'refuse', image: null }],
    ['PATCH /api/v1/releases/rel_none', { status: 'running' }],
    ['POST /api/v1/builds/depot_builder', { app_name: 'refuse' }],
    ['POST /api/v1/organizations/personal/builders', {}],
    ['POST /api/v1/organizations/personal/postgresv2', {}],
  ] as const) {
    const { status, text } = await cloud.call(line, body)
    assert.ok(status >= 400 && ![500, 502, 503].includes(status), `${line}: ${status} ${text}`)
  }
}

async function madeToRest(cloud: Cloud): Promise<void> {
  const { one } = await newMachine(cloud, await newApp(cloud, 'rest'), { skip_launch: true })
  await reaches(cloud, one, 'state=stopped')
  await reaches(cloud, one, 'state=settled')
  const change = (skip_launch: boolean) =>
    cloud.call(`POST ${one}`, { config: { image: 'two' }, skip_launch })
  assert.equal((await change(true)).status, 200)
  await reaches(cloud, one, 'state=settled')
  assert.equal((await read(cloud, one)).state, 'stopped', 'an update that starts nothing')
  assert.equal((await change(false)).status, 200)
  await reaches(cloud, one, 'state=started')
}

async function destroyedReadable(cloud: Cloud): Promise<void> {
  const root = await newApp(cloud, 'ended')
  const { machine, one } = await newMachine(cloud, root, {
    config: { auto_destroy: true, restart: { policy: 'no' } },
  })
  await reaches(cloud, one, 'state=started')
  cloud.host.driver.finish(machine.id, { exitCode: 3 })
  await reaches(cloud, one, `state=destroyed&instance_id=${machine.instance_id}`)
  const ended = await read(cloud, one)
  assert.equal(ended.state, 'destroyed')
  const exit = ended.events.find(({ type }) => type === 'exit')?.request?.exit_event
  assert.deepEqual(
    [exit?.exit_code, exit?.oom_killed, exit?.requested_stop],
    [3, false, false],
    JSON.stringify(ended.events),
  )
  assert.deepEqual((await cloud.call(`GET ${root}`)).body, [], 'no list shows it unasked')
}

async function eventsInOrder(cloud: Cloud): Promise<void> {
  const { one } = await newMachine(cloud, await newApp(cloud, 'events'))
  await reaches(cloud, one, 'state=started')
  await cloud.call(`POST ${one}/stop`, {})
  await reaches(cloud, one, 'state=stopped')
  await cloud.call(`POST ${one}/start`)
  await reaches(cloud, one, 'state=started')
  const { events } = await read(cloud, one)
  assertNewestFirst(events)
  assert.deepEqual(
    [events[0]?.type, events.at(-1)?.type, events.filter(({ type }) => type === 'exit').length],
    ['start', 'launch', 1],
  )
  const alone = (await cloud.call(`GET ${one}/events`)).body as unknown as MachineEvent[]
  assert.deepEqual(
    alone.map(({ id }) => id),
    events.map(({ id }) => id),
  )
}

async function checksAnew(cloud: Cloud, t: TestContext): Promise<void> {
  let healthy = true
  const server = http.createServer((_, response) => {
    // The new version answers nothing, so that what is shown of it is what it began with.
    if (healthy) response.end()
  })
  t.after(() => {
    server.closeAllConnections()
    server.close()
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  const check = { type: 'http', port, path: '/', interval: '2s', timeout: '30s' }
  const config = { image: 'one', checks: { alive: { ...check, grace_period: '0s' } } }
  const { one } = await newMachine(cloud, await newApp(cloud, 'checks'), { config })
  await reaches(cloud, one, 'state=started')
  const statuses = async () => (await read(cloud, one)).checks?.map(({ status }) => status)
  await eventually('it passes', async () => (await statuses())?.join() === 'passing')
  healthy = false
  const updated = await cloud.call(`POST ${one}`, { config: { ...config, image: 'two' } })
  const version = String(updated.body['instance_id'])
  assert.doesNotMatch(JSON.stringify(updated.body['checks']), /passing/)
  await reaches(cloud, one, `state=started&instance_id=${version}`)
  assert.equal((await statuses())?.length, 1)
  assert.notEqual((await statuses())?.[0], 'passing')
}

async function configEchoed(cloud: Cloud): Promise<void> {
  const root = await newApp(cloud, 'echo')
  const config = {
    image: 'one',
    init: {},
    env: { A: '' },
    metadata: { fly_platform_version: 'v2' },
    restart: {},
    services: [
      {
        protocol: 'tcp',
        internal_port: 80,
        autostop: false,
        ports: [{ port: 80, handlers: ['http'] }],
        force_instance_key: null,
      },
    ],
    checks: { alive: { port: 80, type: 'tcp' } },
  }
  const { one } = await newMachine(cloud, root, { config, skip_launch: true })
  const assertEchoed = async (sent: object) => {
    const list = (await cloud.call(`GET ${root}`)).body as unknown as Machine[]
    for (const machine of [await read(cloud, one), list[0]]) {
      const { guest, ...rest } = machine?.config ?? {}
      assert.deepEqual(rest, sent)
      assert.ok(guest)
    }
  }
  await assertEchoed(config)
  const smaller = { image: 'two', metadata: config.metadata }
  await reaches(cloud, one, 'state=stopped')
  assert.equal((await cloud.call(`POST ${one}`, { config: smaller })).status, 200)
  await assertEchoed(smaller)
}

async function eightGroups(cloud: Cloud): Promise<void> {
  const { machine, one } = await newMachine(cloud, await newApp(cloud, 'groups'))
  assert.match(machine.private_ip, /^[0-9a-f]{1,4}(:[0-9a-f]{1,4}){7}$/)
  assert.equal((await read(cloud, one)).private_ip, machine.private_ip)
}

async function unknownFields(cloud: Cloud): Promise<void> {
  const { call } = cloud
  const odd = { nobody_knows: { this: [1, null] } }
  const app = await call('POST /v1/apps', { app_name: 'odd', org_slug: 'personal', ...odd })
  assert.equal(app.status, 201, app.text)
  const { one } = await newMachine(cloud, '/v1/apps/odd/machines', { config: odd, ...odd })
  await reaches(cloud, one, 'state=started')
  assert.partialDeepStrictEqual((await read(cloud, one)).config, odd)
  for (const [line, body] of [
    [`POST ${one}`, { config: { image: 'two', ...odd } }],
    [`POST ${one}/lease`, { ttl: 1 }],
    [`POST ${one}/metadata/a`, { value: 'b' }],
    ['POST /v1/apps/odd/secrets', { values: { A: '1' } }],
    ['POST /v1/apps/odd/ip_assignments', { type: 'shared_v4' }],
    ['POST /api/v1/builds', { app_name: 'odd', builder_type: 'local' }],
    ['POST /api/v1/releases', { app_name: 'odd', image: 'one', definition: {} }],
  ] as const) {
    const { status, text } = await call(line, { ...body, ...odd })
    assert.ok(status < 300, `${line}: ${status} ${text}`)
  }
}

async function spellings(cloud: Cloud): Promise<void> {
  const { call } = cloud
  for (const field of ['name', 'app_name']) {
    const app = `by-${field.replace('_', '-')}`
    assert.equal((await call('POST /v1/apps', { [field]: app, org_slug: 'personal' })).status, 201)
    assert.equal((await call(`GET /v1/apps/${app}`)).body['name'], app)
  }
  const root = '/v1/apps/by-name/machines'
  for (const [gone, version] of [
    ['force', 'instance_id'],
    ['kill', 'version'],
  ] as const) {
    const { machine, one } = await newMachine(cloud, root)
    assert.equal(machine.instance_id, machine.version)
    await reaches(cloud, one, `state=started&${version}=${machine.instance_id}`)
    assert.equal((await call(`DELETE ${one}?${gone}=false`)).status, 412, 'it runs')
    assert.equal((await call(`DELETE ${one}?${gone}=true`)).status, 200)
    await reaches(cloud, one, `state=destroyed&${version}=${machine.instance_id}`)
  }
}

async function manyPolls(cloud: Cloud): Promise<void> {
  const { one } = await newMachine(cloud, await newApp(cloud, 'polls'))
  await reaches(cloud, one, 'state=started')
  const lines = ['', '/lease', '/wait?state=started&timeout=1', '/events']
  const polls = Array.from({ length: 100 }, (_, i) => cloud.call(`GET ${one}${lines[i % 4]}`))
  const statuses = (await Promise.all(polls)).map(({ status }) => status)
  // Nobody holds a lease.
  assert.deepEqual(
    statuses,
    statuses.map((_, i) => (i % 4 === 1 ? 404 : 200)),
  )
}

async function noLines(cloud: Cloud): Promise<void> {
  await newApp(cloud, 'silent')
  const { status, body } = await cloud.call('GET /api/v1/apps/silent/logs?next_token=')
  assert.deepEqual([status, body], [200, { data: [], meta: { next_token: '' } }])
}

async function opaqueTokens(cloud: Cloud): Promise<void> {
  const query = 'query($slug: String!) { organization(slug: $slug) { id } }'
  const org = await cloud.call('POST /graphql', { query, variables: { slug: 'personal' } })
  const { organization } = org.body['data'] as { organization: { id: string } }
  const made = await cloud.call('POST /graphql', {
    query:
      'mutation($input: CreateLimitedAccessTokenInput!) { createLimitedAccessToken(input: $input) { limitedAccessToken { tokenHeader } } }',
    variables: {
      input: { name: 't', organizationId: organization.id, profile: 'org', profileParams: {} },
    },
  })
  const { createLimitedAccessToken } = made.body['data'] as {
    createLimitedAccessToken: { limitedAccessToken: { tokenHeader: string } }
  }
  for (const token of [cloud.token, createLimitedAccessToken.limitedAccessToken.tokenHeader]) {
    assert.doesNotMatch(token.replace(/^FlyV1 /, ''), /^fm[12][ar]?_/)
  }
}

async function quietClient(): Promise<void> {
  const { out } = await hangar(['env'], { env: { HANGAR_API: 'http://127.0.0.1:4999' } })
  for (const [name, value] of [
    ['FLY_SEND_METRICS', '0'],
    ['FLY_NO_UPDATE_CHECK', '1'],
    ['FLY_SYNTHETICS_AGENT', '0'],
    ['FLY_NO_INCIDENTS_CHECK', '1'],
  ]) {
    assert.match(out, new RegExp(`\\b${name}='?${value}'?$`, 'm'))
  }
  // Set to nothing it still counts as set.
  assert.doesNotMatch(out, /\b(CI|GITHUB_ACTIONS)=/)
}
