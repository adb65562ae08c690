import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import type { Hono } from 'hono'
import { Fault } from '#core/fault.ts'
import { createToken } from '#control/auth/index.ts'
import {
  operatorToken,
  startTestControl,
  type FakeHost,
  type TestControl,
} from '#control/test-support.ts'
import type { Env } from '../request.ts'
import { createApi } from '../server.ts'

let control: TestControl
let api: Hono<Env>
let admin = ''
const host = () => control.hosts[0] as FakeHost

before(async () => {
  control = await startTestControl()
  admin = await operatorToken(control.ctx)
  api = createApi(control.ctx)
})

after(() => control.close())

/** What an answer holds is for each test to say. */
type Data = Record<string, unknown>
interface Answer {
  status: number
  data: Data
  errors: { message: string; extensions?: { code?: string } }[] | undefined
}

async function post(path: string, body: unknown, token = admin, method = 'POST') {
  const answer = await api.request(path, {
    method,
    headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  })
  const text = await answer.text()
  return { status: answer.status, body: (text === '' ? {} : JSON.parse(text)) as Data }
}

async function ask(
  query: string,
  variables: Record<string, unknown> = {},
  token = admin,
): Promise<Answer> {
  const { status, body } = await post('/graphql', { query, variables }, token)
  const { data, errors } = body as unknown as Answer
  return { status, data, errors }
}

/** The answer's data, which must have come without an error. */
async function asked(query: string, variables: Record<string, unknown> = {}): Promise<Data> {
  const { status, data, errors } = await ask(query, variables)
  assert.equal(status, 200)
  assert.equal(errors, undefined, JSON.stringify(errors))
  return data
}

async function newApp(name: string): Promise<{ id: string }> {
  const { status, body } = await post('/v1/apps', { name, org_slug: 'personal' })
  assert.equal(status, 201)
  return body as { id: string }
}

const released = async (app: string, image = 'r/i:t', status = 'complete'): Promise<string> => {
  const definition = { app, auto_stop_machines: 'suspend' }
  const made = await post('/api/v1/releases', {
    app_name: app,
    build_id: 1,
    definition,
    image,
    strategy: 'ROLLING',
  })
  const { id } = made.body['release'] as { id: string }
  await post(`/api/v1/releases/${id}`, { status, metadata: null }, admin, 'PATCH')
  return id
}

test('viewer: who the token is', async () => {
  const { viewer } = await asked(
    'query { viewer { ... on User { id email enablePaidHobby } ... on Macaroon { email } } }',
  )
  assert.deepEqual(viewer, {
    id: 'admin@hangar.localhost',
    email: 'admin@hangar.localhost',
    enablePaidHobby: false,
  })
})

test('organizations: ids are text, the numeric one too; slugs; what a token sees', async () => {
  const query =
    'query($admin: Boolean!) { organizations(admin: $admin) { nodes { id slug rawSlug name type paidPlan billable viewerRole internalNumericId } } }'
  const { organizations } = await asked(query, { admin: false })
  const [personal] = (organizations as { nodes: Record<string, unknown>[] }).nodes
  assert.equal(personal?.['slug'], 'personal')
  assert.equal(personal?.['type'], 'PERSONAL')
  assert.equal(typeof personal?.['internalNumericId'], 'string')
  const one = await asked(
    'query($slug: String!) { organization(slug: $slug) { id internalNumericId slug rawSlug name type billable } }',
    { slug: 'personal' },
  )
  assert.equal((one['organization'] as { id: string }).id, personal?.['id'])
  const full = await asked(
    `query GetOrganization($slug: String!) { organization(slug: $slug) { ...OrganizationData } }
     fragment OrganizationData on Organization { id slug rawSlug paidPlan addOnSsoLink provisionsBetaExtensions name billable billingStatus }`,
    { slug: 'personal' },
  )
  assert.equal((full['organization'] as { billable: boolean }).billable, true)
  const details = await asked(
    'query($slug: String!) { organizationdetails: organization(slug: $slug) { id viewerRole remoteBuilderImage remoteBuilderApp { name } members { edges { cursor node { id name email } joinedAt role } } } }',
    { slug: 'personal' },
  )
  assert.equal((details['organizationdetails'] as { viewerRole: string }).viewerRole, 'admin')
  const none = await ask('{ organization(slug: "nowhere") { id } }')
  assert.match(none.errors?.[0]?.message ?? '', /Could not find Organization "nowhere"/)
})

test('createOrganization: a slug from the name, unique; only the operator may', async () => {
  const query =
    'mutation($input: CreateOrganizationInput!) { createOrganization(input: $input) { organization { id name slug type viewerRole } } }'
  const first = await asked(query, { input: { name: 'My Team!' } })
  const second = await asked(query, { input: { name: 'my team' } })
  const slugOf = (data: Data) =>
    (data['createOrganization'] as { organization: { slug: string } }).organization.slug
  assert.deepEqual([slugOf(first), slugOf(second)], ['my-team', 'my-team-2'])
  assert.equal(
    (await ask(query, { input: { name: '¡!' } })).errors?.[0]?.extensions?.code,
    'INVALID',
  )
})

test('app: compact, basic, full; the numeric id is a number; a missing one is told in the known words', async () => {
  await newApp('look')
  const { appcompact } = await asked(
    'query ($appName: String!) { appcompact:app(name: $appName) { id internalNumericId name hostname cnameTarget deployed network status appUrl platformVersion organization { id internalNumericId slug paidPlan } postgresAppRole: role { name } } }',
    { appName: 'look' },
  )
  const app = appcompact as Record<string, unknown>
  assert.equal(typeof app['internalNumericId'], 'number')
  assert.deepEqual(
    [app['deployed'], app['status'], app['platformVersion'], app['hostname'], app['network']],
    [false, 'pending', 'machines', 'look.hangar.localhost', ''],
  )
  assert.equal(typeof (app['organization'] as Data)['internalNumericId'], 'string')
  await post('/v1/apps/look/machines', { config: { image: 'nginx', env: { A: 'b' } } })
  const full = await asked(
    'query ($appName: String!) { app(name: $appName) { id name version config { definition } services { description protocol internalPort ports { port handlers } } ipAddresses { nodes { id address type createdAt } } sharedIpAddress imageDetails { registry repository tag digest version } currentRelease { evaluationId status inProgress version } machines{ nodes { id name config state region createdAt app { name } ips { nodes { family kind ip maskSize } } host { id } } } } }',
    { appName: 'look' },
  )
  const [machine] = (full['app'] as { machines: { nodes: Record<string, unknown>[] } }).machines
    .nodes
  assert.deepEqual(machine?.['config'], { image: 'nginx', env: { A: 'b' } })
  const { errors, status } = await ask('{ app(name: "none") { id } }')
  assert.equal(status, 200)
  assert.match(errors?.[0]?.message ?? '', /Could not find App "none"/)
  assert.equal(errors?.[0]?.extensions?.code, 'NOT_FOUND')
})

test('apps: all that a token sees, by organization, none of a role', async () => {
  await newApp('listed')
  const query =
    'query($org: ID, $role: String, $after: String) { apps(type: "container", first: 200, after: $after, organizationId: $org, role: $role) { pageInfo { hasNextPage endCursor } nodes { id name deployed hostname platformVersion organization { slug name } currentRelease { createdAt status } status } } }'
  const names = (data: Data) =>
    (data['apps'] as { nodes: { name: string }[] }).nodes.map(({ name }) => name)
  assert.ok(names(await asked(query)).includes('listed'))
  assert.deepEqual(names(await asked(query, { role: 'postgres_cluster' })), [])
  const { organization } = await asked('{ organization(slug: "personal") { id } }')
  const { id } = organization as { id: string }
  assert.ok(names(await asked(query, { org: id })).includes('listed'))
})

test('releases: newest first, whoever drove them; the definition is the object that was sent', async () => {
  await newApp('rel')
  const before = await asked(
    'query FlyctlConfigCurrentRelease($appName: String!) { app(name:$appName) { currentReleaseUnprocessed { configDefinition } } }',
    { appName: 'rel' },
  )
  assert.equal((before['app'] as Data)['currentReleaseUnprocessed'], null)
  await released('rel', 'r/i:1')
  await released('rel', 'r/i:2', 'failed')
  const { app } = await asked(
    'query($appName: String!, $limit: Int!) { app(name: $appName) { currentReleaseUnprocessed { id version imageRef configDefinition } releases: releasesUnprocessed(first: $limit) { nodes { id version description reason status imageRef stable user { id email name } createdAt } } } }',
    { appName: 'rel', limit: 25, status: 'a variable that the query does not declare' },
  )
  const { currentReleaseUnprocessed: current, releases } = app as {
    currentReleaseUnprocessed: Data
    releases: { nodes: { version: number; status: string }[] }
  }
  assert.deepEqual(
    releases.nodes.map((r) => [r.version, r.status]),
    [
      [2, 'failed'],
      [1, 'complete'],
    ],
  )
  assert.deepEqual(current['configDefinition'], { app: 'rel', auto_stop_machines: 'suspend' })
  assert.deepEqual([current['version'], current['imageRef']], [1, 'r/i:1'])
})

test('image: digits for its size, a reference to deploy verbatim; what cannot be pulled says why', async () => {
  await newApp('img')
  const query =
    'query ($appName: String!, $imageRef: String!) { app(name: $appName) { id image(ref: $imageRef) { id digest ref compressedSize: compressedSizeFull manifest } } }'
  const { app } = await asked(query, { appName: 'img', imageRef: 'nginx' })
  const image = (app as { image: Record<string, unknown> }).image
  assert.match(String(image['compressedSize']), /^\d+$/)
  assert.equal(typeof image['compressedSize'], 'string')
  assert.equal(image['ref'], 'r/nginx:latest')
  host().refuse.push({
    match: /images/,
    fault: new Fault('image_unavailable', 'nobody has image nope'),
  })
  const missing = await ask(query, { appName: 'img', imageRef: 'nope' })
  assert.match(missing.errors?.[0]?.message ?? '', /nobody has image nope/)
  const foreign = await ask(query, { appName: 'img', imageRef: '127.0.0.1:1/other:x' })
  assert.equal(foreign.errors?.[0]?.extensions?.code, 'FORBIDDEN')
  const latest = await ask(
    'query($image: String!, $flyVersion: String) { latestImageDetails(image: $image, flyVersion: $flyVersion) { registry repository tag version digest } }',
    { image: 'r/i:t' },
  )
  assert.match(latest.errors?.[0]?.message ?? '', /Unknown repository/)
})

test('addresses: allocate, list, release; the shared one stands apart and is given once', async () => {
  const { id } = await newApp('addr')
  const allocate =
    'mutation($input: AllocateIPAddressInput!) { allocateIpAddress(input: $input) { ipAddress { id address type region createdAt } app { sharedIpAddress } } }'
  const v6 = await asked(allocate, { input: { appId: id, type: 'v6', region: '' } })
  const { address } = (v6['allocateIpAddress'] as { ipAddress: { address: string } }).ipAddress
  await asked(allocate, { input: { appId: 'addr', type: 'shared_v4' } })
  await asked(allocate, { input: { appId: 'addr', type: 'shared_v4' } })
  const flycast = await asked(allocate, { input: { appId: 'addr', type: 'private_v6' } })
  assert.match(JSON.stringify(flycast), /fdaa:0:1:0:1::/)
  const list =
    'query ($appName: String!) { app(name: $appName) { ipAddresses { nodes { id address type region createdAt network { name organization { slug } } serviceName } } sharedIpAddress egressIpAddresses { nodes { id ip version region updatedAt } } } }'
  const { app } = await asked(list, { appName: 'addr' })
  const nodes = (app as { ipAddresses: { nodes: { type: string }[] } }).ipAddresses.nodes
  assert.deepEqual(
    nodes.map(({ type }) => type),
    ['v6', 'private_v6'],
  )
  assert.equal((app as { sharedIpAddress: string }).sharedIpAddress, '127.0.0.1')
  const { body } = await post('/v1/apps/addr/ip_assignments', undefined, admin, 'GET')
  assert.deepEqual(
    (body['ips'] as { shared: boolean; region: string }[]).map((ip) => [ip.shared, ip.region]),
    [
      [false, 'global'],
      [true, ''],
      [false, 'global'],
    ],
  )
  const release =
    'mutation($input: ReleaseIPAddressInput!) { releaseIpAddress(input: $input) { clientMutationId } }'
  await asked(release, { input: { appId: 'addr', ip: address } })
  const again = await ask(release, { input: { appId: 'addr', ip: address } })
  assert.equal(again.errors?.[0]?.extensions?.code, 'NOT_FOUND')
  const dedicated = await ask(allocate, { input: { appId: 'addr', type: 'v4' } })
  assert.equal(dedicated.errors?.[0]?.extensions?.code, 'NOT_AVAILABLE_YET')
})

test('tokens: made with a scope, listed without the secret, revoked at once', async () => {
  const { id } = await newApp('tok')
  await newApp('tok-other')
  const { organization } = await asked('{ organization(slug: "personal") { id } }')
  const create =
    'mutation CreateLimitedAccessToken($name: String!, $organizationId: ID!, $profile: String!, $profileParams: JSON, $expiry: String!) { createLimitedAccessToken(input: {name: $name, organizationId: $organizationId, profile: $profile, profileParams: $profileParams, expiry: $expiry}) { limitedAccessToken { tokenHeader } } }'
  const variables = {
    name: 'ci',
    organizationId: (organization as { id: string }).id,
    profile: 'deploy',
    profileParams: { app_id: id },
    expiry: '175200h0m0s',
  }
  const made = await asked(create, variables)
  const secret = (
    made['createLimitedAccessToken'] as { limitedAccessToken: { tokenHeader: string } }
  ).limitedAccessToken.tokenHeader
  const may = async (app: string) =>
    (await ask(`{ app(name: "${app}") { id } }`, {}, secret)).errors
  assert.equal(await may('tok'), undefined)
  assert.equal((await may('tok-other'))?.[0]?.extensions?.code, 'FORBIDDEN')
  const listed = await asked(
    'query ($appName: String!) { appLimitedAccessTokens: app(name: $appName) { limitedAccessTokens { nodes { id name token expiresAt revokedAt user { email } } } } }',
    { appName: 'tok' },
  )
  const [token] = (
    listed['appLimitedAccessTokens'] as { limitedAccessTokens: { nodes: Record<string, string>[] } }
  ).limitedAccessTokens.nodes
  assert.equal(token?.['name'], 'ci')
  assert.ok(!JSON.stringify(listed).includes(secret), 'a secret is shown once')
  const ofOrg = await asked(
    'query ($slug: String!) { orgLimitedAccessTokens: organization(slug: $slug) { limitedAccessTokens { nodes { id name expiresAt revokedAt user { email } } } } }',
    { slug: 'personal' },
  )
  assert.ok(JSON.stringify(ofOrg).includes(token?.['id'] as string))
  const revoke =
    'mutation($input:DeleteLimitedAccessTokenInput!) { deleteLimitedAccessToken(input: $input) { token } }'
  await asked(revoke, { input: { id: token?.['id'] } })
  assert.match((await may('tok'))?.[0]?.message ?? '', /authenticated/)
  assert.match(
    (await ask(create, { ...variables, expiry: 'soon' })).errors?.[0]?.message ?? '',
    /expiry/,
  )
  assert.equal(
    (await ask(create, { ...variables, profile: 'ssh' })).errors?.[0]?.extensions?.code,
    'NOT_AVAILABLE_YET',
  )
})

test('a limited token makes no wider one, revokes no other, and logs itself out', async () => {
  const { id, organization } = await newApp('narrow').then(() =>
    asked('{ app(name: "narrow") { id organization { id } } }').then(
      ({ app }) => app as { id: string; organization: { id: string } },
    ),
  )
  const scope = { profile: 'deploy', org_id: organization.id, app_id: id } as const
  const mine = await createToken(control.ctx, { name: 'n', email: 'n@x', scope })
  const other = await createToken(control.ctx, { name: 'o', email: 'o@x', scope })
  const create = (profile: string) =>
    ask(
      'mutation($o: ID!, $p: String!) { createLimitedAccessToken(input: {name: "x", organizationId: $o, profile: $p}) { limitedAccessToken { tokenHeader } } }',
      { o: organization.id, p: profile },
      mine.secret,
    )
  for (const profile of ['deploy_organization', 'readonly']) {
    assert.equal((await create(profile)).errors?.[0]?.extensions?.code, 'FORBIDDEN')
  }
  const revoke = await ask(
    `mutation { deleteLimitedAccessToken(input: {id: "${other.id}"}) { token } }`,
    {},
    mine.secret,
  )
  assert.equal(revoke.errors?.[0]?.extensions?.code, 'NOT_FOUND')
  const list = await ask(
    '{ organization(slug: "personal") { limitedAccessTokens { nodes { id } } } }',
    {},
    other.secret,
  )
  assert.deepEqual(list.data['organization'], {
    limitedAccessTokens: { nodes: [{ id: other.id }] },
  })
  const out = await ask('mutation LogOut { logOut(input: {}) { ok } }', {}, mine.secret)
  assert.deepEqual(out.data, { logOut: { ok: true } })
  assert.ok((await ask('{ viewer { __typename } }', {}, mine.secret)).errors)
  assert.deepEqual((await ask('mutation { logOut(input: {}) { ok } }')).errors, undefined)
  assert.equal((await ask('{ viewer { __typename } }')).errors, undefined, 'the first token stays')
})

test('regions, machines and volumes by id', async () => {
  await newApp('ids')
  const platform = await asked(
    'query { platform { requestRegion regions { name code latitude longitude gatewayAvailable requiresPaidPlan deprecated } } nearestRegion(wireguardGateway: true) { code name gatewayAvailable deprecated } }',
  )
  assert.equal((platform['platform'] as { requestRegion: string }).requestRegion, 'ord')
  assert.equal((platform['nearestRegion'] as { code: string }).code, 'ord')
  const made = await post('/v1/apps/ids/machines', { config: { image: 'nginx' } })
  const { gqlmachine } = await asked(
    'query ($machineId: String!) { gqlmachine:machine(machineId: $machineId) { id name app { name organization { id slug } } } }',
    { machineId: made.body['id'] },
  )
  assert.equal((gqlmachine as { app: { name: string } }).app.name, 'ids')
  const { body } = await post('/v1/apps/ids/volumes', { name: 'data', region: 'ord' })
  const { volume } = await asked(
    'query GetAppNameStateFromVolume($id: ID!) { volume: volume(id: $id) { ... on Volume { app { name } state snapshots { nodes { id size digest createdAt retentionDays } } } } }',
    { id: body['id'] },
  )
  assert.deepEqual(volume, { app: { name: 'ids' }, state: 'created', snapshots: { nodes: [] } })
  for (const query of [
    '{ machine(machineId: "x") { id } }',
    '{ volume(id: "x") { __typename } }',
  ]) {
    assert.equal((await ask(query)).errors?.[0]?.extensions?.code, 'NOT_FOUND')
  }
})

test('lists of what does not exist yet are empty; making such things is refused with a code', async () => {
  await newApp('later')
  const empty = await asked(
    `query ListOrganizationAddOns($orgSlug: String!, $addOnType: AddOnType) { organization(slug: $orgSlug) { addOns(type: $addOnType) { nodes { id name addOnPlan { displayName description } privateIp primaryRegion readRegions options metadata } } wireGuardPeers { nodes { id name pubkey region peerip } } loggedCertificates { nodes { root cert } } delegatedWireGuardTokens { nodes { name } } allowedReplaySourceOrgSlugs } }`,
    { orgSlug: 'personal', addOnType: 'tigris' },
  )
  assert.deepEqual((empty['organization'] as { addOns: unknown }).addOns, { nodes: [] })
  const app = await asked(
    'query($appName: String!) { apphostissues:app(name: $appName) { hostIssues { nodes { internalId message createdAt updatedAt } } } canPerformBluegreenDeployment(name: $appName) }',
    { appName: 'later' },
  )
  assert.equal(app['canPerformBluegreenDeployment'], true)
  const peers = await asked(
    'mutation($input: ValidateWireGuardPeersInput!) { validateWireGuardPeers(input: $input) { invalidPeerIps } }',
    { input: { peerIps: ['fdaa::1'] } },
  )
  assert.deepEqual(peers['validateWireGuardPeers'], { invalidPeerIps: ['fdaa::1'] })
  for (const query of [
    'mutation { addWireGuardPeer(input: {organizationId: "o", name: "n", pubkey: "k"}) { peerip endpointip pubkey } }',
    'mutation { issueCertificate(input: {organizationId: "o"}) { certificate, key } }',
    'mutation { createAddOn(input: {type: "redis"}) { addOn { name } } }',
    'mutation { allocateEgressIpAddress(input: {appId: "later"}) { v4, v6 } }',
    'mutation { moveApp(input: {appId: "a", organizationId: "o"}) { app { id } } }',
    'mutation { createDoctorUrl { putUrl } }',
    'query { latestImageTag(repository: "flyio/postgres-flex") }',
  ]) {
    const { status, errors } = await ask(query)
    assert.equal(status, 200)
    assert.equal(errors?.[0]?.extensions?.code, 'NOT_AVAILABLE_YET', query)
  }
})

test('always 200: strangers, broken bodies, unknown fields, our own faults', async () => {
  for (const [body, code, token] of [
    [{ query: '{ __schema { types { name } } }' }, 'UNAUTHORIZED', 'forged'],
    [{ query: 'not a query' }, 'BAD_REQUEST', admin],
    [{ query: '{ nothing }' }, 'BAD_REQUEST', admin],
    [{ query: 5 }, 'BAD_REQUEST', admin],
    [[], 'BAD_REQUEST', admin],
    [{ query: '{ viewer { __typename } }', variables: 'x' }, 'BAD_REQUEST', admin],
    [
      { query: 'query A { a: viewer { __typename } } query B { b: viewer { __typename } }' },
      'BAD_REQUEST',
      admin,
    ],
    [
      {
        query: 'query($slug: String!) { organization(slug: $slug) { id } }',
        variables: { slug: 5 },
      },
      'BAD_REQUEST',
      admin,
    ],
  ] as const) {
    const answer = await post('/graphql', body, token)
    const [error] = answer.body['errors'] as { message: string; extensions: { code: string } }[]
    assert.deepEqual([answer.status, error?.extensions.code], [200, code], JSON.stringify(body))
  }
})

test('bounded: depth, fields, aliases, fragments that multiply, tokens', async () => {
  const deep = '{ organization(slug: "personal") { apps { nodes { '.repeat(1)
  const nest = (levels: number): string =>
    levels === 0 ? '{ id }' : `{ organization { apps { nodes ${nest(levels - 1)} } } }`
  const bomb = Array.from(
    { length: 20 },
    (_, i) => `fragment F${i} on App { id ${i < 19 ? `...F${i + 1} ...F${i + 1}` : ''} }`,
  ).join(' ')
  const loop = 'fragment L on App { organization { apps { nodes { ...L } } } }'
  const aliases = Array.from({ length: 10_000 }, (_, i) => `a${i}: __typename`).join(' ')
  for (const query of [
    `{ app(name: "x") ${nest(50)} }`,
    `{ ${aliases} }`,
    `{ app(name: "x") { ${Array.from({ length: 1_200 }, (_, i) => `a${i}: id`).join(' ')} } }`,
    `{ app(name: "x") { ...F0 } } ${bomb}`,
    `{ app(name: "x") { ...L } } ${loop}`,
    `{ ${Array.from({ length: 11 }, (_, i) => `a${i}: viewer { __typename }`).join(' ')} }`,
    `{ ...R } fragment R on Query { ${Array.from({ length: 11 }, (_, i) => `a${i}: __typename`).join(' ')} }`,
    deep.repeat(2_000),
  ]) {
    const { errors, data } = await ask(query)
    assert.ok(errors?.length, query.slice(0, 80))
    assert.equal(data, undefined, 'refused before anything is run')
  }
})
