import { createHash, timingSafeEqual } from 'node:crypto'
import { Hono, type Context, type Env } from 'hono'
import { Fault, isFault } from '#core/fault.ts'
import { limits } from '#core/limits.ts'
import type { Agent } from './agent.ts'
import { machineRoutes } from './machine-routes.ts'
import { hostRoutes } from './host-routes.ts'
import { told } from './told.ts'

/** The API of this host (spec/host-api.ts): who asks is one of our own roles, or nobody. */
export function createServer(agent: Agent, clusterKey: string): Hono {
  const server = new Hono()
  const expected = digest(`Bearer ${clusterKey}`)
  server.use(async (context, next) => {
    if (!timingSafeEqual(digest(context.req.header('authorization') ?? ''), expected)) {
      throw new Fault('unauthorized', 'this is a host of the cloud; it takes the cluster key only')
    }
    const length = Number(context.req.header('content-length') ?? 0)
    if (length > limits.hostBodyBytesMax) {
      throw new Fault('too_large', `a body has at most ${limits.hostBodyBytesMax} bytes`)
    }
    return next()
  })
  server.route('/', machineRoutes(agent))
  server.route('/', hostRoutes(agent))
  server.notFound((context) => answerFault(context, agent, new Fault('not_found', 'no such path')))
  answerFaults(server, () => agent)
  return server
}

/** What a route throws is its answer; what is no Fault is a mistake of ours, and the operator hears of it. */
export function answerFaults<E extends Env>(
  routes: Hono<E>,
  agent: () => Pick<Agent, 'dirs' | 'log'>,
): void {
  routes.onError((error, context) => {
    if (!isFault(error)) {
      agent().log.error({ path: context.req.path, error: error.stack }, 'a request failed')
    }
    const fault = isFault(error) ? error : new Fault('internal', error.message)
    return answerFault(context, agent(), fault)
  })
}

const digest = (text: string) => createHash('sha256').update(text).digest()

function answerFault(context: Context, agent: Pick<Agent, 'dirs' | 'log'>, fault: Fault): Response {
  const body = { error: told(agent, fault), status: fault.code, details: fault.details }
  return context.json(body, fault.status as 400)
}
