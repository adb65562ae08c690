import type { Hono } from 'hono'
import { Fault } from '#core/fault.ts'
import {
  applySecrets,
  currentDefinition,
  currentRelease,
  followProgress,
  getRelease,
  listReleases,
  startDeploy,
} from '#control/deploy/index.ts'
import { appOf, flag, intOf, objectBody, param, type Env } from './request.ts'
import { jsonLines } from './stream.ts'
import { releaseView } from './uiex.ts'

/** Releases: asked for here, carried out by control, watched by whoever likes. */
export function deployRoutes(api: Hono<Env>): void {
  const root = '/api/v1/apps/:app'

  api.post(`${root}/deploys`, async (c) => {
    const app = await appOf(c, 'write')
    const user = c.var.caller.email
    return c.json(await startDeploy(c.var.ctx, app, await objectBody(c), user), 201)
  })

  api.post(`${root}/secrets/apply`, async (c) => {
    const app = await appOf(c, 'write')
    return c.json(await applySecrets(c.var.ctx, app, c.var.caller.email), 201)
  })

  api.get(`${root}/releases`, async (c) => {
    const app = await appOf(c, 'read')
    const limit = Math.min(intOf(c.req.query('limit'), 'limit') ?? 100, 1_000)
    const releases = await listReleases(c.var.ctx, app, limit)
    return c.json({ releases: releases.map(releaseView) })
  })

  api.get(`${root}/releases/current`, async (c) => {
    const app = await appOf(c, 'read')
    const release = await currentRelease(c.var.ctx, app)
    if (release) return c.json(releaseView(release))
    throw new Fault('not_found', `app ${app.name} has no release yet; deploy it first`)
  })

  api.get(`${root}/releases/:id`, async (c) =>
    c.json(await getRelease(c.var.ctx, await appOf(c, 'read'), param(c, 'id'))),
  )

  api.get(`${root}/releases/:id/progress`, async (c) => {
    const app = await appOf(c, 'read')
    const follow = flag(c.req.query('follow') ?? 'false')
    const { id } = await getRelease(c.var.ctx, app, param(c, 'id'))
    return jsonLines(c, (signal) => followProgress(c.var.ctx, app, id, { follow, signal }))
  })

  api.get(`${root}/definition`, async (c) => {
    const app = await appOf(c, 'read')
    const definition = await currentDefinition(c.var.ctx, app)
    if (definition) return c.json(definition)
    throw new Fault(
      'not_found',
      `app ${app.name} has no release with a definition; deploy it first`,
    )
  })
}
