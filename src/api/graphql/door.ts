import { readFileSync } from 'node:fs'
import {
  AbortedGraphQLExecutionError,
  buildSchema,
  execute,
  GraphQLError,
  parse,
  specifiedRules,
  validate,
  type DocumentNode,
  type ExecutionResult,
  type GraphQLSchema,
} from 'graphql'
import type { Hono } from 'hono'
import { Fault, isFault, messageOf } from '#core/fault.ts'
import { authenticate } from '#control/auth/index.ts'
import { isDatabaseDown } from '#control/store/index.ts'
import { objectBody, type Env } from '../request.ts'
import { addressMutations } from './addresses.ts'
import { appMutations, appQueries } from './apps.ts'
import { boundedQuery, boundedResolver, queryBounds, refuseDeepText } from './bounds.ts'
import type { Graph } from './context.ts'
import { imageQueries } from './images.ts'
import { laterMutations, laterQueries } from './not-yet.ts'
import { organizationMutations, organizationQueries } from './organizations.ts'
import { regionQueries } from './regions.ts'
import { secretMutations } from './secrets.ts'
import { tokenMutations } from './tokens.ts'

const root = {
  ...organizationQueries,
  ...appQueries,
  ...imageQueries,
  ...regionQueries,
  ...laterQueries,
  ...organizationMutations,
  ...tokenMutations,
  ...appMutations,
  ...addressMutations,
  ...secretMutations,
  ...laterMutations,
}

/** How much is asked comes first: the other rules take long for much. */
function wrongIn(schema: GraphQLSchema, document: DocumentNode): readonly GraphQLError[] {
  const tooMuch = validate(schema, document, [boundedQuery], { maxErrors: 5 })
  if (tooMuch.length > 0) return tooMuch
  return validate(schema, document, specifiedRules, { maxErrors: 5 })
}

export const graphSchema = (): GraphQLSchema =>
  buildSchema(readFileSync(new URL('schema.graphql', import.meta.url), 'utf8'))

/**
 * `POST /graphql`. The status is 200 whatever comes of it: clients read the reason from `errors`, and only from there. Who
 * asks is checked before the query is read, so that a stranger learns nothing and costs nothing.
 */
export function graphRoutes(api: Hono<Env>): void {
  const schema = graphSchema()
  api.post('/graphql', async (c) => {
    const { ctx, requestId } = c.var
    try {
      const caller = await authenticate(ctx, c.req.header('authorization'))
      const graph: Graph = { ctx, caller, requestId, apps: new Map() }
      const answer = await ask(schema, await objectBody(c), graph)
      return answered(answer, requestId)
    } catch (error) {
      return answered({ errors: [shown(error, c.var)] }, requestId)
    }
  })
}

/** Clients ask the same few queries for ever: those that were right are read and checked once. */
const rightQueries = new Map<string, DocumentNode>()

function keepRight(query: string, document: DocumentNode): void {
  if (query.length > queryBounds.keptTextMax) return
  if (rightQueries.size >= queryBounds.keptMax) rightQueries.clear()
  rightQueries.set(query, document)
}

/** Variables that the query does not declare are ignored: a client sends such. */
async function ask(schema: GraphQLSchema, body: Record<string, unknown>, graph: Graph) {
  const { query, operationName, variables } = body
  if (typeof query !== 'string') {
    throw new Fault('bad_request', 'the body must be {"query": "…", "variables": {…}}')
  }
  if (variables !== undefined && variables !== null && typeof variables !== 'object') {
    throw new Fault('bad_request', 'variables must be an object')
  }
  let document = rightQueries.get(query)
  if (!document) {
    refuseDeepText(query)
    document = parse(query, { maxTokens: queryBounds.tokensMax })
    const wrong = wrongIn(schema, document)
    if (wrong.length > 0) return { errors: wrong.map((error) => shown(error, graph)) }
    keepRight(query, document)
  }
  const end = new AbortController()
  const result: ExecutionResult = await execute({
    schema,
    document,
    fieldResolver: boundedResolver(end),
    abortSignal: end.signal,
    rootValue: root,
    contextValue: graph,
    variableValues: variables as Record<string, unknown> | null | undefined,
    operationName: typeof operationName === 'string' ? operationName : null,
  })
  if (!result.errors) return { data: result.data ?? null }
  return { data: result.data ?? null, errors: result.errors.map((error) => shown(error, graph)) }
}

type Log = Pick<Graph, 'ctx' | 'requestId'>

/** A fault speaks for itself, and so does a fault of the query; anything else keeps its insides in the log. */
function shown(error: unknown, { ctx, requestId }: Log) {
  const at = error instanceof GraphQLError && error.path ? { path: error.path } : {}
  const cause =
    error instanceof GraphQLError
      ? (error.originalError ?? error)
      : error instanceof AbortedGraphQLExecutionError
        ? error.cause
        : error
  if (isFault(cause) && cause.code !== 'internal') {
    const extensions = { code: cause.code.toUpperCase() }
    return { message: cause.message, ...at, extensions }
  }
  if (cause instanceof GraphQLError) {
    return { message: cause.message, ...at, extensions: { code: 'BAD_REQUEST' } }
  }
  ctx.log.error({ requestId, error: messageOf(cause) }, 'a query failed')
  return { message: insideText(cause, requestId), ...at, extensions: { code: 'INTERNAL' } }
}

const insideText = (error: unknown, requestId: string): string =>
  isDatabaseDown(error)
    ? `the database does not answer; machines keep running, try again in a moment (request ${requestId})`
    : `something went wrong inside Hangar; request ${requestId} is in the log of control`

const answered = (body: unknown, requestId: string): Response =>
  Response.json(body, { status: 200, headers: { 'fly-request-id': requestId } })
