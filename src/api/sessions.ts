import type { Hono } from 'hono'
import { Fault, isFault } from '#core/fault.ts'
import { loginInputSchema, redeemInputSchema } from '#spec/login.ts'
import {
  approveLogin,
  getLogin,
  pollLogin,
  redeemLogin,
  startLogin,
  type Fetched,
  type Login,
} from '#control/auth/index.ts'
import { describeIssue } from '#control/machines/index.ts'
import { askPage, codePage, donePage, endPage } from './login-page.ts'
import { objectBody, param, type Env, type Request } from './request.ts'

/** §3: who logs in has no token yet, so these stand before the check of tokens. */
export function sessionRoutes(api: Hono<Env>): void {
  api.post('/api/v1/cli_sessions', async (c) => {
    const body = loginInputSchema.safeParse(await objectBody(c))
    if (!body.success) throw new Fault('invalid', describeIssue(body.error))
    const { id } = await startLogin(c.var.ctx, body.data, c.env?.incoming?.socket.remoteAddress)
    const pkce = Boolean(body.data.code_challenge)
    const auth_url = `${new URL(c.req.url).origin}/auth/cli/${id}`
    return c.json({ id, auth_url, pkce, metadata: body.data.metadata ?? {} }, 201)
  })

  // The first 200 ends a client's polling, whatever it holds.
  api.get('/api/v1/cli_sessions/:id', async (c) => {
    const id = param(c, 'id')
    const fetched = await pollLogin(c.var.ctx, id)
    if (!fetched) throw new Fault('not_found', 'nobody has allowed this login yet')
    return c.json(sessionView(id, fetched))
  })

  api.post('/api/v1/cli_sessions/:id/redeem', async (c) => {
    const id = param(c, 'id')
    const body = redeemInputSchema.safeParse(await objectBody(c))
    if (!body.success) throw new Fault('invalid', describeIssue(body.error))
    return c.json({ ...sessionView(id, await redeemLogin(c.var.ctx, id, body.data)), pkce: true })
  })

  // A client shows its own words for every refusal here; the text is for whoever looks closer.
  api.post('/api/v1/sessions', () => {
    throw new Fault(
      'unauthorized',
      'there are no passwords in this cloud; log in with "fly auth login" without --email, or set FLY_ACCESS_TOKEN to a token of this cloud',
    )
  })

  pageRoutes(api)
}

const sessionView = (id: string, { token, metadata }: Fetched) => ({
  id,
  ...(token === undefined ? {} : { access_token: token }),
  metadata,
})

/** The page behind `auth_url`: GET shows, POST allows. */
function pageRoutes(api: Hono<Env>): void {
  const cloudOf = (c: Request) => `${c.var.ctx.settings.domain} (${new URL(c.req.url).host})`

  api.get('/auth/cli/:id', (c) =>
    onPage(async () => {
      const login = await getLogin(c.var.ctx, param(c, 'id'))
      return login.approved ? donePage() : askPage(login, { cloud: cloudOf(c) })
    }),
  )

  api.post('/auth/cli/:id', (c) =>
    onPage(async () => {
      const id = param(c, 'id')
      const login = await getLogin(c.var.ctx, id)
      requireOwnForm(c)
      const form = new URLSearchParams(await c.req.text())
      try {
        const { code } = await approveLogin(c.var.ctx, id, form.get('token')?.trim() ?? '')
        return await allowed(c, login, { code, way: form.get('way') ?? '' })
      } catch (error) {
        if (!isFault(error) || error.whose !== 'user' || error.code === 'not_found') throw error
        return askPage(login, { cloud: cloudOf(c), wrong: error.message, status: error.status })
      }
    }),
  )
}

/** A login without a challenge is polled, and has no use for the code. */
async function allowed(
  c: Request,
  login: Login,
  { code, way }: { code: string; way: string },
): Promise<Response> {
  if (!login.pkce) return donePage()
  if (login.redirectPort === null || way === 'code') return codePage(code)
  const query = new URLSearchParams({ code, state: login.state })
  return c.redirect(`http://127.0.0.1:${login.redirectPort}/callback?${query.toString()}`, 303)
}

/** Only a form that this page itself showed may allow a login: browsers name the origin of each form that they send. */
function requireOwnForm(c: Request): void {
  const origin = c.req.header('origin')
  const own = new URL(c.req.url).host
  if (origin !== undefined && URL.parse(origin)?.host === own) return
  throw new Fault(
    'forbidden',
    'this form was not sent from this page; open the address that the terminal shows',
  )
}

/** People read these answers, so a refusal is a page too. Faults of ours go on to whoever logs them. */
async function onPage(answer: () => Promise<Response>): Promise<Response> {
  try {
    return await answer()
  } catch (error) {
    if (!isFault(error) || error.code === 'internal') throw error
    return endPage(error.status, error.message)
  }
}
