import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { after, before, test } from 'node:test'
import type { Hono } from 'hono'
import { operatorToken, startTestControl, type TestControl } from '#control/test-support.ts'
import { graphSchema } from './graphql/door.ts'
import type { Env } from './request.ts'
import { checkedApi, sampleCall } from './test-support.ts'

/** docs/compatibility.md against what is there, and against what it answers. */

let control: TestControl
let api: Hono<Env>
let admin = ''

before(async () => {
  control = await startTestControl()
  admin = await operatorToken(control.ctx)
  api = checkedApi(control.ctx)
})
after(() => control.close())

const states = ['works', 'differs', 'records', 'empty', 'refused', 'not yet']

/** What the tables under a heading name in their first column, and the state that each has. */
function stated(heading: string): Map<string, string> {
  const page = readFileSync(new URL('../../docs/compatibility.md', import.meta.url), 'utf8')
  const section = page.split('\n## ').find((one) => one.startsWith(heading)) ?? ''
  const found = new Map<string, string>()
  for (const [, names = '', state = ''] of section.matchAll(/^\| (`.*?) \| (.*?) \|/gm)) {
    assert.ok(states.includes(state), `${names}: "${state}" is no state`)
    for (const [, name = ''] of names.matchAll(/`(.*?)`/g)) {
      assert.ok(!found.has(name), `${name} stands twice`)
      found.set(name, state)
    }
  }
  return found
}

/** What differs may be closed in part. */
function holdNotYet(rows: ReadonlyMap<string, string>, closed: readonly string[]): void {
  const sure = closed.filter((name) => rows.get(name) !== 'differs')
  const said = [...rows.keys()].filter((name) => rows.get(name) === 'not yet')
  assert.deepEqual(sure.toSorted(), said.toSorted())
}

const ask = (method: string, path: string, body?: unknown) =>
  api.request(path, {
    method,
    headers: { authorization: `Bearer ${admin}` },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  })

test('every root field of GraphQL has a row, and only what says "not yet" is not yet', async () => {
  const rows = stated('GraphQL')
  const schema = graphSchema()
  const queries = schema.getQueryType()?.getFields() ?? {}
  const mutations = schema.getMutationType()?.getFields() ?? {}
  const fields = { ...queries, ...mutations }
  assert.deepEqual([...rows.keys()].toSorted(), Object.keys(fields).toSorted())
  const notYet: string[] = []
  for (const [name, field] of Object.entries(fields)) {
    const kind = name in mutations ? 'mutation' : 'query'
    const answer = await ask('POST', '/graphql', {
      query: `${kind} { ${sampleCall(name, field)} }`,
    })
    if ((await answer.text()).includes('"NOT_AVAILABLE_YET"')) notYet.push(name)
  }
  holdNotYet(rows, notYet)
})

/** For all clients alike, or for Hangar's own: these have no row. */
const unlisted =
  /^\/(v1|api\/v1)\/\*$|^\/v1\/apps\/:app\/machines\/:id\/\*$|^\/api\/v1\/(viewer|status|images\/inspect|apps\/:app\/(log-stream|machines\/:id\/exec|builds|builds\/.*|deploys|secrets\/apply|releases\/:id|releases\/:id\/progress|definition))$/

for (const [heading, prefix] of [
  ['Machines REST', '/v1/'],
  ['The third door', '/api/v1/'],
] as const) {
  test(`every route of ${prefix} has a row, and only what says "not yet" is not yet`, async () => {
    const rows = new Map<string, string>()
    for (const [doors, state] of stated(heading)) {
      const [path = '', ...methods] = doors.split(' ').toReversed()
      for (const method of methods) rows.set(`${method} ${path}`, state)
    }
    const routes = api.routes.filter(({ path }) => path.startsWith(prefix) && !unlisted.test(path))
    const there = new Set(routes.map(({ method, path }) => `${method} ${path}`))
    assert.deepEqual([...rows.keys()].toSorted(), [...there].toSorted())
    const app = `seen${prefix.length}`
    assert.equal((await ask('POST', '/v1/apps', { name: app, org_slug: 'personal' })).status, 201)
    const notYet: string[] = []
    for (const door of there) {
      const [verb = '', pattern = ''] = door.split(' ')
      // Its app would be gone for those that come after it.
      if (door === 'DELETE /v1/apps/:app') continue
      const path = pattern
        .replace(':app', app)
        .replace(':slug', 'personal')
        .replace('*', 'x')
        .replaceAll(/:\w+/g, 'none')
      const method = verb === 'ALL' ? 'POST' : verb
      const { status } = await ask(method, path, method === 'GET' ? undefined : { app_name: app })
      if (status === 501) notYet.push(door)
    }
    holdNotYet(rows, notYet)
  })
}
