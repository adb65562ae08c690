import type { Hono } from 'hono'
import { createBuild, runBuild, takeBuild } from '#control/build/index.ts'
import { appOf, objectBody, param, type Env } from './request.ts'
import { jsonLines } from './stream.ts'

/** The one upload: streamed to a file, with a limit of its own. */
export const buildContextPath = /^\/api\/v1\/apps\/[^/]+\/builds\/[^/]+\/context$/

export function buildRoutes(api: Hono<Env>): void {
  api.post('/api/v1/apps/:app/builds', async (c) => {
    const app = await appOf(c, 'write')
    return c.json(await createBuild(c.var.ctx, app, await objectBody(c)), 201)
  })

  api.put('/api/v1/apps/:app/builds/:id/context', async (c) => {
    const build = takeBuild(await appOf(c, 'write'), param(c, 'id'))
    const { incoming } = c.env
    return jsonLines(c, (signal) => runBuild(c.var.ctx, build, incoming, signal))
  })
}
