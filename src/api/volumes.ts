import type { Hono } from 'hono'
import { requireApp } from '#control/auth/index.ts'
import {
  changeVolume,
  createSnapshot,
  createVolume,
  destroyVolume,
  extendVolume,
  getVolume,
  listSnapshots,
  listVolumes,
} from '#control/volumes/index.ts'
import { appOf, objectBody, param, type Env } from './request.ts'

/** VOL-17. */
export function volumeRoutes(api: Hono<Env>): void {
  const root = '/v1/apps/:app/volumes'
  api.get(root, async (c) => c.json(await listVolumes(c.var.ctx, await appOf(c, 'read'))))
  api.post(root, async (c) => {
    const app = await appOf(c, 'write')
    const body = await objectBody(c)
    const { caller, ctx } = c.var
    // What a volume is made from may belong to another app: reading it needs leave of its own.
    return c.json(await createVolume(ctx, app, body, (from) => requireApp(caller, from, 'read')))
  })
  api.get(`${root}/:id`, async (c) =>
    c.json(await getVolume(c.var.ctx, await appOf(c, 'read'), param(c, 'id'))),
  )
  api.put(`${root}/:id`, async (c) => {
    const app = await appOf(c, 'write')
    return c.json(await changeVolume(c.var.ctx, app, param(c, 'id'), await objectBody(c)))
  })
  api.delete(`${root}/:id`, async (c) =>
    c.json(await destroyVolume(c.var.ctx, await appOf(c, 'write'), param(c, 'id'))),
  )

  api.put(`${root}/:id/extend`, async (c) => {
    const app = await appOf(c, 'write')
    return c.json(await extendVolume(c.var.ctx, app, param(c, 'id'), await objectBody(c)))
  })
  api.get(`${root}/:id/snapshots`, async (c) =>
    c.json(await listSnapshots(c.var.ctx, await appOf(c, 'read'), param(c, 'id'))),
  )
  api.post(`${root}/:id/snapshots`, async (c) =>
    c.json(await createSnapshot(c.var.ctx, await appOf(c, 'write'), param(c, 'id'))),
  )
}
