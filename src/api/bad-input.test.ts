import assert from 'node:assert/strict'
import http from 'node:http'
import type { AddressInfo } from 'node:net'
import { after, before, test } from 'node:test'
import { gzipSync } from 'node:zlib'
import { getRequestListener } from '@hono/node-server'
import {
  getNamedType,
  isInputObjectType,
  isListType,
  isNonNullType,
  isObjectType,
  isUnionType,
  type GraphQLArgument,
  type GraphQLField,
  type GraphQLInputType,
} from 'graphql'
import type { Hono } from 'hono'
import { sql } from 'kysely'
import { limits } from '#core/limits.ts'
import { createApp } from '#control/apps/index.ts'
import { ensureOrg } from '#control/orgs/index.ts'
import { operatorToken, startTestControl, type TestControl } from '#control/test-support.ts'
import { graphSchema } from './graphql/door.ts'
import type { Env } from './request.ts'
import { checkedApi } from './test-support.ts'
import { refuseSlowBodies } from './slow-body.ts'

/** Every door with what no client should send: a typed refusal that changes nothing, and never a fault of ours. */

let control: TestControl
let api: Hono<Env>
let admin = ''
const made = { app: 'bad', id: '', volume: '' }

before(async () => {
  control = await startTestControl()
  admin = await operatorToken(control.ctx)
  const org = await ensureOrg(control.ctx, 'personal', 'Personal')
  await createApp(control.ctx, { name: made.app, org })
  api = checkedApi(control.ctx)
  const machine = await call('POST /v1/apps/bad/machines', '{"config":{"image":"nginx"}}')
  const volume = await call('POST /v1/apps/bad/volumes', '{"name":"data","region":"ord"}')
  made.id = String(machine.body['id'])
  made.volume = String(volume.body['id'])
  assert.ok(machine.status === 200 && volume.status === 200)
})
after(() => control.close())

type Body = Record<string, unknown>

async function call(
  line: string,
  body?: RequestInit['body'],
  headers: Record<string, string> = {},
) {
  const [method = 'GET', path = '/'] = line.split(' ')
  const answer = await api.request(path, {
    method,
    headers: { authorization: `Bearer ${admin}`, 'content-type': 'application/json', ...headers },
    ...(body === undefined ? {} : { body }),
  })
  const text = await answer.text()
  let parsed: unknown
  try {
    parsed = JSON.parse(text)
  } catch {
    parsed = { text }
  }
  return { status: answer.status, body: (parsed ?? {}) as Body, headers: answer.headers }
}

/** One number for all that control keeps, but for what it remembers of a host's last answer. */
async function state(): Promise<string> {
  const sums = ['orgs', 'networks', 'tokens', 'apps', 'secrets', 'releases', 'ip_assignments']
  sums.push('certificates', 'builds', 'client_builds')
  const parts = sums.map((name) => sql`(select sum(hashtext(t::text)) from ${sql.table(name)} t)`)
  const placed = ['machine_placements', 'volume_placements'].map(
    (name) => sql`(select count(*) from ${sql.table(name)} where status = 'placed')`,
  )
  const query = sql`select concat_ws(' ', ${sql.join([...parts, ...placed])}) as all`
  const { rows } = await query.execute(control.ctx.db)
  return JSON.stringify(rows)
}

/** A refusal that a client can read, and nothing of ours in it. */
function typed(answer: Awaited<ReturnType<typeof call>>, what: string): void {
  const { status, body } = answer
  assert.ok(status < 500 || status === 501, `${what}: ${status} ${JSON.stringify(body)}`)
  if (status < 400 || answer.headers.get('content-type')?.includes('html')) return
  assert.ok(typeof body['error'] === 'string' && body['error'] !== '', what)
  assert.ok(typeof body['status'] === 'string', what)
  assert.match(answer.headers.get('fly-request-id') ?? '', /^\w{26}$/)
}

// GraphQL ------------------------------------------------------------------------------------------------------------

const schema = graphSchema()
const operations = [schema.getQueryType(), schema.getMutationType()].flatMap((type) =>
  Object.values(type?.getFields() ?? {}).map((field) => ({ kind: type?.name ?? '', field })),
)

/** A value of the type that means nothing to anybody: right in shape, and of no thing that exists. */
function harmless(type: GraphQLInputType): unknown {
  if (isNonNullType(type)) return harmless(type.ofType)
  if (isListType(type)) return [harmless(type.ofType)]
  if (isInputObjectType(type)) {
    const fields = Object.values(type.getFields()).filter((field) => isNonNullType(field.type))
    return Object.fromEntries(fields.map((field) => [field.name, harmless(field.type)]))
  }
  return { Int: 1, Float: 1, Boolean: true }[type.name] ?? 'nothing-of-this-name'
}

/** Scalars of our own take whatever comes. */
const takesAll = (type: GraphQLInputType) => {
  const { name } = getNamedType(type)
  return ['JSON', 'AddOnType', 'BigInt', 'ISO8601DateTime'].includes(name)
}
const wrong = (type: GraphQLInputType): unknown =>
  isInputObjectType(getNamedType(type)) ? 'text' : { an: 'object' }

function selection(field: GraphQLField<unknown, unknown>): string {
  const type = getNamedType(field.type)
  return isObjectType(type) || isUnionType(type) ? ' { __typename }' : ''
}

function operationText(
  kind: string,
  field: GraphQLField<unknown, unknown>,
  args: readonly GraphQLArgument[],
): string {
  const declared = args.map((arg) => `$${arg.name}: ${String(arg.type)}`).join(', ')
  const given = args.map((arg) => `${arg.name}: $${arg.name}`).join(', ')
  const head = `${kind.toLowerCase()}${declared ? `(${declared})` : ''}`
  return `${head} { ${field.name}${given ? `(${given})` : ''}${selection(field)} }`
}

type Errors = { message: string; extensions: { code: string } }[] | undefined

async function ask(query: string, variables: unknown = {}) {
  const { status, body } = await call('POST /graphql', JSON.stringify({ query, variables }))
  assert.equal(status, 200, query)
  const errors = body['errors'] as Errors
  for (const { message, extensions } of errors ?? []) {
    assert.ok(message !== '' && extensions.code !== 'INTERNAL', `${query}: ${message}`)
  }
  return { data: body['data'] as Body | null | undefined, errors }
}

test('GraphQL: each operation with missing, null, extra and wrong arguments', async () => {
  const before = await state()
  let refused = 0
  const refusedAs = async (code: string, query: string, variables?: unknown) => {
    const { errors } = await ask(query, variables)
    assert.equal(errors?.[0]?.extensions.code, code, `${query} ${JSON.stringify(variables)}`)
    refused++
  }
  assert.ok(operations.length > 40)
  for (const { kind, field } of operations) {
    const right = Object.fromEntries(field.args.map((arg) => [arg.name, harmless(arg.type)]))
    const text = operationText(kind, field, field.args)
    for (const arg of field.args) {
      const others = field.args.filter((one) => one !== arg)
      const { [arg.name]: _, ...less } = right
      if (isNonNullType(arg.type)) {
        await refusedAs('BAD_REQUEST', operationText(kind, field, others), less)
        await refusedAs('BAD_REQUEST', text, less)
        await refusedAs('BAD_REQUEST', text, { ...right, [arg.name]: null })
      } else if (kind === 'Query') {
        await ask(text, { ...right, [arg.name]: null })
      }
      if (!takesAll(arg.type)) {
        await refusedAs('BAD_REQUEST', text, { ...right, [arg.name]: wrong(arg.type) })
      }
      const input = getNamedType(arg.type)
      if (!isInputObjectType(input)) continue
      const extra = { ...(right[arg.name] as Body), nobodyKnows: 1 }
      await refusedAs('BAD_REQUEST', text, { [arg.name]: extra })
      for (const inner of Object.values(input.getFields())) {
        const whole = right[arg.name] as Body
        if (isNonNullType(inner.type)) {
          const { [inner.name]: __, ...lacking } = whole
          await refusedAs('BAD_REQUEST', text, { [arg.name]: lacking })
          await refusedAs('BAD_REQUEST', text, { [arg.name]: { ...whole, [inner.name]: null } })
        }
        if (takesAll(inner.type)) continue
        const bad = { ...whole, [inner.name]: wrong(inner.type) }
        await refusedAs('BAD_REQUEST', text, { [arg.name]: bad })
      }
    }
    const unknown = text.includes('(') && field.args.length > 0
    await refusedAs(
      'BAD_REQUEST',
      unknown
        ? text.replace(`${field.name}(`, `${field.name}(nobodyKnows: 1, `)
        : text.replace(field.name, `${field.name}(nobodyKnows: 1)`),
      right,
    )
  }
  assert.ok(refused > 200, `${refused} refused`)
  assert.equal(await state(), before, 'nothing changed')
})

test('GraphQL: things that do not exist are not found, in queries and in mutations', async () => {
  const before = await state()
  for (const { kind, field } of operations) {
    if (kind !== 'Mutation' || /logOut|createOrganization$/.test(field.name)) continue
    const input = field.args[0] && harmless(field.args[0].type)
    await ask(operationText(kind, field, field.args), input === undefined ? {} : { input })
  }
  assert.equal(await state(), before)
})

test('GraphQL: what takes long to read or to answer is refused at once', async () => {
  const many = (count: number, text: (i: number) => string) =>
    Array.from({ length: count }, (_, i) => text(i)).join(' ')
  const introspection = (levels: number): string =>
    levels === 0 ? '{ name }' : `{ fields { type ${introspection(levels - 1)} } }`
  const cycle = many(
    60,
    (i) => `fragment F${i} on App { ${many(20, (j) => `...F${(i * 7 + j) % 60}`)} }`,
  )
  const queries: [string, unknown?][] = [
    [`{ app(name: ${'['.repeat(2_400)}${']'.repeat(2_400)}) { id } }`],
    [`query($a: ${'['.repeat(2_400)}Int${']'.repeat(2_400)}) { app(name: $a) { id } }`],
    [`{ app(name: "x") ${'{ ... on App '.repeat(1_200)} { id } ${'}'.repeat(1_200)} }`],
    [`{ __schema { types ${introspection(6)} } }`],
    [`{ app(name: "x") { ...F0 } } ${cycle}`],
    [`{ app(name: "x") { id } } fragment F on App { ${'id '.repeat(4_900)} }`],
    [`{ ${many(400, () => 'app(name: "x") { organization { id } }')} }`],
    [`query(${many(1_600, (i) => `$v${i}: Int`)}) { viewer { __typename } }`],
    [
      'query($slug: String!) { organization(slug: $slug) { id } }',
      { slug: Array(100_000).fill('x') },
    ],
    [`{ app(name: "${'x'.repeat(1_000_000)}") { id } }`],
  ]
  for (const [query, variables] of queries) {
    const begun = performance.now()
    const { errors, data } = await ask(query, variables)
    assert.ok(errors?.length && !data?.['__schema'], query.slice(0, 80))
    assert.ok(performance.now() - begun < 30_000, query.slice(0, 80))
  }
})

test('GraphQL: lists inside lists inside lists end at a limit', async () => {
  const { ctx } = control
  const org = await ensureOrg(ctx, 'many', 'Many')
  for (let i = 0; i < 70; i++) await createApp(ctx, { name: `many-${i}`, org })
  const nested = (levels: number): string =>
    levels === 0 ? '{ id }' : `{ organization { apps { nodes ${nested(levels - 1)} } } }`
  const twice = await ask(`{ app(name: "many-1") ${nested(2)} }`)
  assert.equal(twice.errors, undefined)
  const four = await ask(`{ app(name: "many-1") ${nested(4)} }`)
  assert.equal(four.errors?.[0]?.extensions.code, 'LIMIT_REACHED')
  assert.equal((await ask('{ viewer { __typename } }')).errors, undefined)
})

// REST ---------------------------------------------------------------------------------------------------------------

const routes = () =>
  api.routes
    .filter(({ method, path }) => method !== 'ALL' && !path.endsWith('*'))
    .map((route) => ({
      ...route,
      /** With every name in it as given. */
      at: (names: Record<string, string>) =>
        `${route.method} ${route.path.replaceAll(/:(\w+)/g, (_, name: string) => names[name] ?? 'x')}`,
    }))

const real = (path: string) => ({
  app: made.app,
  id: path.includes('/volumes') ? made.volume : path.includes('/releases') ? 'rel_none' : made.id,
  slug: 'personal',
})

test('names in paths: too long, encoded, climbing, half a character, somebody else’s', async () => {
  const odd = [
    '%2e%2e',
    '..%2f..%2fetc%2fpasswd',
    '%2f',
    '%ff%fe',
    '%',
    '%00',
    '😀',
    "'%20OR%201=1",
  ]
  odd.push('a'.repeat(8_000), '__proto__', 'constructor', '%0d%0aset-cookie:a', '-1', '%25')
  for (const { at, path, method } of routes()) {
    for (const name of path.includes(':') ? odd : []) {
      const line = at({ ...real(path), [/:(\w+)(?!.*:)/.exec(path)?.[1] ?? '']: name })
      // A delete of what is not there would be no refusal of the name.
      typed(await call(line, line.startsWith('GET') ? undefined : '{}'), line.slice(0, 200))
    }
    if (!path.includes(':app') || method !== 'GET') continue
    for (const app of odd)
      typed(await call(at({ ...real(path), app })), `${path} ${app.slice(0, 40)}`)
  }
})

test('other methods at every path are not found', async () => {
  const before = await state()
  for (const path of new Set(routes().map((route) => route.path))) {
    for (const method of ['GET', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS']) {
      if (routes().some((route) => route.path === path && route.method === method)) continue
      const line = `${method} ${path.replaceAll(/:(\w+)/g, 'nothing')}`
      typed(await call(line, method === 'GET' ? undefined : '{}'), line)
    }
  }
  assert.equal(await state(), before)
})

/** What the client sends where: each is taken as it is, or refused for what it names. */
const bodies: Record<string, Body> = {
  'POST /v1/apps': { name: 'bad', org_slug: 'personal', network: '', app_role_id: '' },
  'POST /v1/apps/:app/machines': {
    config: { image: 'nginx', guest: { cpu_kind: 'shared', cpus: 1, memory_mb: 256 } },
    region: 'nowhere',
    name: 'm',
    skip_launch: true,
    lease_ttl: 10,
    min_secrets_version: 0,
  },
  'POST /v1/apps/:app/machines/:id/lease': { ttl: 30, description: 'd' },
  'POST /v1/apps/:app/machines/:id/stop': { signal: 'SIGTERM', timeout: '10s' },
  'POST /v1/apps/:app/machines/:id/restart': {},
  'POST /v1/apps/:app/machines/:id/signal': { signal: 9 },
  'POST /v1/apps/:app/machines/:id/exec': { cmd: 'ls', timeout: 5, stdin: '', command: ['ls'] },
  'POST /v1/apps/:app/machines/:id/metadata/:key': { value: 'v' },
  'POST /v1/apps/:app/volumes': { name: 'data', region: 'nowhere', size_gb: 1, encrypted: true },
  'PUT /v1/apps/:app/volumes/:id': { snapshot_retention: 5, auto_backup_enabled: true },
  'PUT /v1/apps/:app/volumes/:id/extend': { size_gb: 4 },
  'POST /v1/apps/:app/secrets': { values: { A: 'b' } },
  'POST /v1/apps/:app/secrets/:name': { value: 'v' },
  'POST /v1/platform/placements': { compute: { cpus: 1 }, region: 'ord', count: 1, weights: {} },
  'POST /api/v1/images/inspect': { image: 'nginx' },
  'POST /api/v1/apps/:app/builds': { dockerfile: 'Dockerfile' },
  'POST /api/v1/apps/:app/deploys': { definition: { http_service: 5 }, image: '!', strategy: 'x' },
  'POST /api/v1/releases': { app_name: 'none', build_id: 1, definition: {}, image: 'i' },
  'PATCH /api/v1/releases/:id': { status: 'running', metadata: null },
  'POST /api/v1/builds': { app_name: 'none', builder_type: 'local', strategies_available: [] },
  'POST /api/v1/builds/finish': { app_name: 'none', build_id: 1, status: 'completed' },
  'POST /v1/apps/:app/ip_assignments': { type: 'x', region: '', org_slug: '', network: '' },
  'POST /v1/apps/:app/certificates/acme': { hostname: 'x' },
  'POST /v1/apps/:app/certificates/custom': { hostname: 'x', fullchain: 'f', private_key: 'k' },
}
const oddValues = [
  null,
  true,
  -1,
  1.5,
  1e300,
  'x',
  '',
  [],
  [[]],
  {},
  { a: { b: 1 } },
  'x'.repeat(70_000),
]

test('each field of each body: missing, null, extra, of another type', async () => {
  const known = routes()
  for (const [line, body] of Object.entries(bodies)) {
    const route = known.find(({ method, path }) => `${method} ${path}` === line)
    assert.ok(route, `${line} is a route`)
    const send = async (sent: unknown) => {
      const before = await state()
      const answer = await call(route.at(real(route.path)), JSON.stringify(sent))
      typed(answer, `${line} ${JSON.stringify(sent).slice(0, 300)}`)
      if (answer.status >= 400) assert.equal(await state(), before, `${line} changed something`)
    }
    for (const key of Object.keys(body)) {
      const { [key]: _, ...less } = body
      await send(less)
      for (const value of oddValues) await send({ ...body, [key]: value })
    }
    await send({ ...body, nobody_knows: { deep: [1] } })
  }
})

test('bodies that are no object, no JSON, no UTF-8, packed, too deep or too large', async () => {
  const before = await state()
  const deep = `${'{"a":'.repeat(5_000)}1${'}'.repeat(5_000)}`
  const texts: [string | Uint8Array<ArrayBuffer>, Record<string, string>?][] = [
    ['[]'],
    ['"x"'],
    ['5'],
    ['{'],
    [deep],
    [new Uint8Array([0x7b, 0x22, 0xff, 0x22, 0x3a, 0x31, 0x7d])],
    [new Uint8Array(gzipSync('x'.repeat(1_000_000))), { 'content-encoding': 'gzip' }],
    ['a=b', { 'content-type': 'application/x-www-form-urlencoded' }],
    ['<a/>', { 'content-type': 'text/xml' }],
  ]
  // These read no body, so that none can be wrong.
  const silent = /cordon|suspend|secrets\/apply|builders|depot|promote|\/check$|context|snapshots$/
  for (const { at, method, path } of routes()) {
    if (!/POST|PUT|PATCH/.test(method) || path === '/graphql' || path === '/registry/token')
      continue
    if (silent.test(path)) continue
    for (const [text, headers] of texts) {
      const answer = await call(at(real(path)), text, headers)
      typed(answer, `${method} ${path} ${String(text).slice(0, 20)}`)
      assert.ok(answer.status >= 400, `${method} ${path} took ${String(text)}`)
    }
  }
  assert.equal(await state(), before)
  const bodies: [string, number][] = [
    ['/v1/apps', limits.apiBodyBytesMax],
    ['/registry/token', limits.apiBodyBytesMax],
    ['/graphql', limits.apiBodyBytesMax],
    ['/v1/apps/bad/machines', limits.apiLargeBodyBytesMax],
    ['/v1/apps/bad/machines/', limits.apiLargeBodyBytesMax],
  ]
  for (const [path, max] of bodies) {
    assert.equal((await call(`POST ${path}`, 'x'.repeat(max + 1))).status, 413, path)
    assert.notEqual((await call(`POST ${path}`, 'x'.repeat(max))).status, 413, path)
  }
})

test('odd questions behind every path that is read', async () => {
  const odd =
    'limit=-1&timeout=-5&timeout=x&state=none&since=x&next_token=%F0%9F&version=x&min_version=-1'
  for (const { at, method, path } of routes()) {
    if (method !== 'GET') continue
    for (const query of [
      odd,
      'limit=99999999999999999999',
      'metadata.=x&metadata.__proto__=y&region[]=z',
    ]) {
      typed(await call(`${at(real(path))}?${query}`), `${path}?${query}`)
    }
  }
})

test('a body that does not arrive is answered 408 and the connection closed', async () => {
  const server = http.createServer((request, response) => {
    void getRequestListener(api.fetch)(request, response)
  })
  refuseSlowBodies(server, { bodyMsMax: 200 })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  try {
    const { port } = server.address() as AddressInfo
    const answer = await new Promise<{ status: number; text: string }>((resolve, reject) => {
      const headers = { authorization: `Bearer ${admin}`, 'content-length': 100 }
      const request = http.request({ port, method: 'POST', path: '/v1/apps', headers })
      request.on('error', reject)
      request.on('response', (incoming) => {
        let text = ''
        incoming.on('data', (chunk) => (text += String(chunk)))
        incoming.on('end', () => resolve({ status: incoming.statusCode ?? 0, text }))
      })
      request.write('{"name":')
    })
    assert.equal(answer.status, 408)
    assert.match(answer.text, /did not arrive within 0\.2 s/)
  } finally {
    server.closeAllConnections()
    server.close()
  }
})
