import type { Hono } from 'hono'
import { Fault } from '#core/fault.ts'
import {
  grantScope,
  registryService,
  signRegistryToken,
  verifyRegistryUser,
  type Grant,
} from '#control/build/index.ts'
import type { Env, Request } from './request.ts'

/** Scopes looked at in one request. */
const scopesMax = 20

/** The docker registry's token server: GET with basic auth, or POST with a password grant. */
export function registryTokenRoutes(api: Hono<Env>): void {
  api.get('/registry/token', async (c) => {
    const [user, password] = basicAuth(c.req.header('authorization'))
    const scopes = c.req.queries('scope') ?? []
    return answer(c, { user, password, scopes, service: c.req.query('service') })
  })

  api.post('/registry/token', async (c) => {
    const form = new URLSearchParams(await c.req.text())
    return answer(c, {
      user: form.get('username') ?? '',
      password: form.get('password') ?? '',
      scopes: form.getAll('scope'),
      service: form.get('service') ?? undefined,
    })
  })
}

function basicAuth(header: string | undefined): [string, string] {
  const match = /^basic\s+([\w+/=]+)$/i.exec(header ?? '')
  if (!match) throw new Fault('unauthorized', 'log in to the registry with user x and an API token')
  const text = Buffer.from(match[1] as string, 'base64').toString('utf8')
  const colon = text.indexOf(':')
  return colon < 0 ? [text, ''] : [text.slice(0, colon), text.slice(colon + 1)]
}

async function answer(
  c: Request,
  ask: { user: string; password: string; scopes: string[]; service: string | undefined },
): Promise<Response> {
  const { ctx } = c.var
  const who = await verifyRegistryUser(ctx, ask.user, ask.password)
  const access: Grant[] = []
  const scopes = ask.scopes.flatMap((scope) => scope.split(' ')).filter(Boolean)
  for (const scope of scopes.slice(0, scopesMax)) {
    const grant = await grantScope(ctx, who, scope)
    if (grant) access.push(grant)
  }
  const service = ask.service || registryService
  return c.json(await signRegistryToken(ctx, { subject: ask.user, service, access }))
}
