import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Validator } from '@seriousme/openapi-schema-validator'
import type { ControlContext } from '#control/index.ts'
import { systemClock } from '#core/clock.ts'
import { createApi } from '../server.ts'
import { describedDoor, holdToDocument } from '../test-support.ts'
import { openApiDocument, operations } from './document.ts'

// Nothing that is asked here reaches control.
const api = createApi({ clock: systemClock } as ControlContext)

/** Doors for anything below a path: they only say that it is not available yet, which OpenAPI has no words for. */
const closed = [
  '/v1/apps/:app/secretkeys',
  '/v1/apps/:app/secretkeys/*',
  '/v1/postgres',
  '/v1/postgres/*',
  '/api/v1/organizations/:slug/postgres/*',
  '/api/v1/organizations/:slug/postgresv2',
  '/api/v1/organizations/:slug/postgresv2/*',
  '/api/v1/postgres/*',
  '/api/v1/postgresv2/*',
]
const middleware = ['/*', '/v1/*', '/api/v1/*', '/v1/apps/:app/machines/:id/*']

test('every REST route is described, and nothing else is', () => {
  const rest = api.routes.filter(({ path }) => /^\/(\*|v1|api\/v1)/.test(path))
  const all = rest.filter(({ method }) => method === 'ALL').map(({ path }) => path)
  assert.deepEqual(new Set(all), new Set([...closed, ...middleware]))
  const routes = rest.filter(({ method }) => method !== 'ALL')
  assert.deepEqual(
    routes.map(({ method, path }) => `${method} ${path}`).toSorted(),
    Object.keys(operations).toSorted(),
  )
})

test('the document is valid OpenAPI 3.1, and every reference leads somewhere', async () => {
  const document = openApiDocument()
  const validator = new Validator()
  const result = await validator.validate(structuredClone(document))
  assert.ok(result.valid, JSON.stringify(result.errors, null, 2))
  assert.equal(validator.version, '3.1')
  const text = JSON.stringify(document)
  const { components } = document as { components: Record<string, Record<string, unknown>> }
  const references = [...text.matchAll(/"\$ref":"([^"]+)"/g)].map(([, to]) => to as string)
  assert.ok(references.length > 100)
  for (const to of references) {
    const [, kind, name] = /^#\/components\/(\w+)\/([\w-]+)$/.exec(to) ?? []
    assert.ok(components[kind ?? '']?.[name ?? ''], to)
  }
  const broken = structuredClone(document) as { paths: Record<string, unknown> }
  broken.paths['/v1/apps'] = { get: { responses: 5 } }
  assert.equal((await new Validator().validate(broken)).valid, false)
})

test('each operation has a name of its own', () => {
  const ids = Object.values(operations).map(({ id }) => id)
  assert.equal(new Set(ids).size, ids.length)
  for (const id of ['Apps_create', 'Machines_create', 'Machines_list', 'Volumes_extend']) {
    assert.ok(ids.includes(id), id)
  }
})

test('it is served to everybody, and not sent twice', async () => {
  const answer = await api.request('/openapi.json')
  assert.equal(answer.status, 200)
  assert.deepEqual(await answer.json(), openApiDocument())
  const again = await api.request('/openapi.json', {
    headers: { 'if-none-match': answer.headers.get('etag') ?? '' },
  })
  assert.equal(again.status, 304)
  assert.equal(await again.text(), '')
})

test('the answers of the tests of this room are held to the document', async () => {
  const platform = describedDoor('GET', '/v1/platform/regions')
  assert.ok(platform)
  const hold = (status: number, text: string) => () => holdToDocument(platform, { status, text })
  hold(200, '{"Regions":[],"Nearest":"ord"}')()
  hold(404, '{"error":"why","status":"not_found"}')()
  assert.throws(hold(200, '{"Regions":3,"Nearest":"ord"}'), /Regions/)
  assert.throws(hold(200, '{"Regions":[]}'), /Nearest/)
  assert.throws(hold(201, '{"Regions":[],"Nearest":"ord"}'), /answered 201/)
  assert.throws(hold(404, '{"message":"why"}'), /answered 404/)
  assert.equal(
    describedDoor('GET', '/api/v1/apps/web/releases/current')?.operation.id,
    'Releases_current',
  )
})
