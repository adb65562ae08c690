import type { Hono } from 'hono'
import { Fault } from '#core/fault.ts'
import { currentRelease, followProgress, getRelease, listReleases } from '#control/store/index.ts'
import { appOf, flag, intOf, param, type Env } from './request.ts'
import { jsonLines } from './stream.ts'

/** Releases: made here, carried out by control, watched by whoever likes. */
export function deployRoutes(api: Hono<Env>): void {
  const root = '/api/v1/apps/:app'

  api.get(`${root}/releases`, async (c) => {
    const app = await appOf(c, 'read')
    const limit = Math.min(intOf(c.req.query('limit'), 'limit') ?? 100, 1_000)
    return c.json(await listReleases(c.var.ctx, { appId: app.id, limit }))
  })

  api.get(`${root}/releases/:id`, async (c) => {
    const app = await appOf(c, 'read')
    return c.json(await getRelease(c.var.ctx, { appId: app.id, id: param(c, 'id') }))
  })

  api.get(`${root}/releases/:id/progress`, async (c) => {
    const app = await appOf(c, 'read')
    const follow = flag(c.req.query('follow') ?? 'false')
    const release = await getRelease(c.var.ctx, { appId: app.id, id: param(c, 'id') })
    const options = { appId: app.id, id: release.id, follow }
    return jsonLines(c, (signal) => followProgress(c.var.ctx, { ...options, signal }))
  })

  api.get(`${root}/definition`, async (c) => {
    const app = await appOf(c, 'read')
    const release = await currentRelease(c.var.ctx, { appId: app.id })
    if (release?.definition) return c.json(release.definition)
    throw new Fault(
      'not_found',
      `app ${app.name} has no release with a definition; deploy it first`,
    )
  })
}
