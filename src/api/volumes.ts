import type { Hono } from 'hono'
import { Fault } from '#core/fault.ts'
import {
  changeVolume,
  createVolume,
  destroyVolume,
  getVolume,
  listVolumes,
} from '#control/volumes/index.ts'
import { appOf, objectBody, param, type Env } from './request.ts'

/** VOL-17. */
export function volumeRoutes(api: Hono<Env>): void {
  const root = '/v1/apps/:app/volumes'
  api.get(root, async (c) => c.json(await listVolumes(c.var.ctx, await appOf(c, 'read'))))
  api.post(root, async (c) =>
    c.json(await createVolume(c.var.ctx, await appOf(c, 'write'), await objectBody(c))),
  )
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
    await getVolume(c.var.ctx, await appOf(c, 'write'), param(c, 'id'))
    throw new Fault(
      'not_available_yet',
      'extending a volume is not available yet; create a larger one and copy the data',
    )
  })
  api.get(`${root}/:id/snapshots`, async (c) => {
    await getVolume(c.var.ctx, await appOf(c, 'read'), param(c, 'id'))
    return c.json([])
  })
  api.post(`${root}/:id/snapshots`, async (c) => {
    await getVolume(c.var.ctx, await appOf(c, 'write'), param(c, 'id'))
    throw new Fault('not_available_yet', 'snapshots of volumes are not available yet')
  })
}
