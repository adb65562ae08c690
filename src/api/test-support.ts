import assert from 'node:assert/strict'
import {
  getNamedType,
  isInputObjectType,
  isLeafType,
  isListType,
  isNonNullType,
  type GraphQLField,
  type GraphQLInputType,
} from 'graphql'
import type { Hono } from 'hono'
import type { ControlContext } from '#control/index.ts'
import { errorSchema, operations } from './openapi/document.ts'
import type { Operation } from './openapi/operation.ts'
import type { Env } from './request.ts'
import { createApi } from './server.ts'

const doors = Object.entries(operations).map(([route, operation]) => {
  const [method = '', path = ''] = route.split(' ')
  const pattern = new RegExp(`^${path.replaceAll(/:\w+/g, '[^/]+')}/?$`)
  // Where two match, `releases/current` and `releases/:id`, the one with fewer names to fill in is meant.
  return { route, method, pattern, holes: path.split(':').length, operation }
})
doors.sort((a, b) => a.holes - b.holes)

/** What the document of `GET /openapi.json` says about this request; undefined where it says nothing. */
export const describedDoor = (method: string, path: string) =>
  doors.find((door) => door.method === method && door.pattern.test(path))

/** Holds an answer to what the document promises: its status, and the shape of its body with nothing left out. */
export function holdToDocument(
  { route, operation }: { route: string; operation: Operation },
  { status, text }: { status: number; text: string },
): void {
  const where = `${route} answered ${status} ${text.slice(0, 2_000)}`
  if (status >= 400) {
    return assert.ok(errorSchema.safeParse(JSON.parse(text)).success, where)
  }
  assert.equal(operation.notYet, undefined, `${where}, but is described as not available yet`)
  assert.equal(status, operation.status ?? 200, where)
  if (!operation.answer) return assert.equal(text, '', where)
  const lines = operation.lines ? text.split('\n').filter((line) => line !== '') : [text]
  for (const line of lines) {
    const result = operation.answer.safeParse(JSON.parse(line))
    assert.ok(result.success, `${where}\nwhich is not what is described: ${result.error?.message}`)
  }
}

/** The API as tests call it: each answer that has an end is held to the document that clients are made from. */
export function checkedApi(ctx: ControlContext): Hono<Env> {
  const api = createApi(ctx)
  const { fetch } = api
  api.fetch = async (request, ...more) => {
    const answer = await fetch(request, ...more)
    const door = describedDoor(request.method, new URL(request.url).pathname)
    const endless = /follow|log-stream|context/.test(request.url)
    if (door && !endless) {
      holdToDocument(door, { status: answer.status, text: await answer.clone().text() })
    }
    return answer
  }
  return api
}

/** A call of a root field of GraphQL, with a sample of each argument that must be given. */
export function sampleCall(name: string, field: GraphQLField<unknown, unknown>): string {
  const given = field.args
    .filter(({ type }) => isNonNullType(type))
    .map((arg) => `${arg.name}: ${sampleOf(arg.type)}`)
  const args = given.length > 0 ? `(${given.join(', ')})` : ''
  return `${name}${args}${isLeafType(getNamedType(field.type)) ? '' : ' { __typename }'}`
}

function sampleOf(type: GraphQLInputType): string {
  if (isNonNullType(type)) return sampleOf(type.ofType)
  if (isListType(type)) return '[]'
  if (isInputObjectType(type)) {
    const needed = Object.values(type.getFields()).filter((field) => isNonNullType(field.type))
    return `{${needed.map((field) => `${field.name}: ${sampleOf(field.type)}`).join(', ')}}`
  }
  return { Int: '1', Boolean: 'true' }[String(type)] ?? '"x"'
}
