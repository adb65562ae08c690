import { serve } from '@hono/node-server'
import { Hono } from 'hono'
import { Fault, isFault } from '#core/fault.ts'
import { ulid } from '#core/ids.ts'
import { limits } from '#core/limits.ts'
import { authenticate } from '#control/auth/index.ts'
import type { ControlContext } from '#control/index.ts'
import { isDatabaseDown } from '#control/store/index.ts'
import { acceptWebSockets, upgradeOptions } from '#sys/web-socket.ts'
import { addressRoutes } from './addresses.ts'
import { appRoutes } from './apps.ts'
import { limitBodies } from './body-limit.ts'
import { buildRoutes } from './builds.ts'
import { certificateRoutes } from './certificates.ts'
import { cloudRoutes } from './cloud.ts'
import { deployRoutes } from './deploys.ts'
import { graphRoutes } from './graphql/door.ts'
import { logRoutes } from './logs.ts'
import { machineRoutes } from './machines.ts'
import { managedPostgresRoutes } from './managed-postgres.ts'
import { openApiRoutes } from './openapi/door.ts'
import { platformRoutes } from './platform.ts'
import { programRoutes } from './programs.ts'
import { registryTokenRoutes } from './registry-token.ts'
import type { Env, Request } from './request.ts'
import { secretKeyRoutes, secretRoutes } from './secrets.ts'
import { sessionRoutes } from './sessions.ts'
import { refuseSlowBodies } from './slow-body.ts'
import { uiexRoutes } from './uiex.ts'
import { volumeRoutes } from './volumes.ts'

/** All doors as one handler of requests. */
export function createApi(ctx: ControlContext): Hono<Env> {
  const api = new Hono<Env>({ strict: false })
  api.use(async (c, next) => {
    c.set('ctx', ctx)
    c.set('requestId', ulid(ctx.clock.now()))
    c.header('fly-request-id', c.var.requestId)
    if (/%00/.test(c.req.url)) {
      throw new Fault('bad_request', 'the address has a NUL (%00) in it; leave it out')
    }
    await next()
  })
  api.use(limitBodies())
  api.onError((error, c) => answerError(c, error))
  api.notFound((c) => {
    const { method, path } = c.req
    const machine = method === 'PUT' && /^\/v1\/apps\/[^/]+\/machines\/[^/]+\/?$/.test(path)
    const hint = machine ? '; a machine is updated with POST at this address' : ''
    return answerError(c, new Fault('not_found', `there is no ${method} ${path} here${hint}`))
  })
  api.get('/healthz', (c) => c.json({ ok: true }))
  openApiRoutes(api)
  registryTokenRoutes(api)
  graphRoutes(api)
  sessionRoutes(api)
  for (const path of ['/v1/*', '/api/v1/*']) {
    api.use(path, async (c, next) => {
      c.set('caller', await authenticate(ctx, c.req.header('authorization')))
      await next()
    })
  }
  appRoutes(api)
  machineRoutes(api)
  programRoutes(api)
  volumeRoutes(api)
  secretRoutes(api)
  secretKeyRoutes(api)
  platformRoutes(api)
  cloudRoutes(api)
  logRoutes(api)
  buildRoutes(api)
  deployRoutes(api)
  uiexRoutes(api)
  managedPostgresRoutes(api)
  addressRoutes(api)
  certificateRoutes(api)
  return api
}

/** MCH-2. What is our fault keeps its insides to itself; the request id finds them in the log. */
function answerError(c: Request, error: unknown): Response {
  const { ctx, requestId } = c.var
  const fault = isFault(error) ? error : undefined
  if (!fault || fault.code === 'internal') {
    ctx.log.error({ requestId, path: c.req.path, err: error }, 'a request failed')
    const text = isDatabaseDown(error)
      ? `the database does not answer; machines keep running, try again in a moment (request ${requestId})`
      : `something went wrong inside Hangar; request ${requestId} is in the log of control`
    return Response.json(
      { error: text, status: 'internal' },
      { status: 500, headers: { 'fly-request-id': requestId } },
    )
  }
  ctx.log.debug({ requestId, path: c.req.path, error: fault.message }, 'request refused')
  const body = {
    error: fault.message,
    status: fault.code,
    ...(fault.details ? { details: fault.details } : {}),
  }
  return Response.json(body, { status: fault.status, headers: { 'fly-request-id': requestId } })
}

/** For answers that are written because control stops. */
const farewellMs = 200

/** Listens on `settings.listen`. */
export async function serveApi(ctx: ControlContext): Promise<{ close(): Promise<void> }> {
  const api = createApi(ctx)
  const { address, port } = ctx.settings.listen
  const server = serve({
    fetch: api.fetch,
    hostname: address,
    port,
    autoCleanupIncoming: false,
    // An absurd token is refused in words; Node's own limit would answer it with none.
    serverOptions: { maxHeaderSize: 256 * 1024, ...upgradeOptions },
  })
  if (!('requestTimeout' in server)) throw new Fault('internal', 'the API needs HTTP/1.1')
  acceptWebSockets(server, (request, bindings) => api.fetch(request, bindings))
  // A build's context may take as long as it takes; a slow header may not.
  server.requestTimeout = 0
  refuseSlowBodies(server, { bodyMsMax: limits.apiBodyMsMax })
  server.headersTimeout = 30_000
  server.keepAliveTimeout = 75_000
  await new Promise<void>((resolve, reject) => {
    if (server.listening) return resolve()
    server.once('listening', resolve)
    server.once('error', (cause) =>
      reject(
        new Fault(
          'native_failed',
          `the API cannot listen on ${address}:${port}: ${cause.message}`,
          { cause },
        ),
      ),
    )
  })
  return {
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve())
        // Who waits is being told that control stops; nobody else is waited for.
        setTimeout(() => server.closeAllConnections(), farewellMs)
      }),
  }
}
