import type { Hono } from 'hono'
import { limits } from '#core/limits.ts'
import { appInputSchema } from '#spec/app.ts'
import { countApps, createApp, describeApps, listApps } from '#control/apps/index.ts'
import { appsReadBy } from '#control/auth/index.ts'
import { deleteApp } from '#control/machines/index.ts'
import { personalSlug } from '#control/orgs/index.ts'
import { bodyOf } from './body.ts'
import { appOf, orgNamed, type Env } from './request.ts'

/** §5.1. */
export function appRoutes(api: Hono<Env>): void {
  api.post('/v1/apps', async (c) => {
    const { ctx } = c.var
    const body = await bodyOf(c, appInputSchema)
    const org = await orgNamed(c, body.org_slug || personalSlug, 'write')
    const name = body.app_name || body.name
    const app = await createApp(ctx, {
      name,
      org,
      network: body.network,
      role: body.app_role_id,
    })
    return c.json((await describeApps(ctx, [app]))[0], 201)
  })

  api.get('/v1/apps', async (c) => {
    const { ctx, caller } = c.var
    const slug = c.req.query('org_slug')
    const org = slug ? await orgNamed(c, slug, 'know') : undefined
    // A client takes what it finds here for its builder, and deletes one that looks broken.
    const role = c.req.query('app_role')
    const filter = {
      ...appsReadBy(caller),
      ...(org ? { orgId: org.id } : {}),
      ...(role ? { role } : {}),
    }
    const apps = await listApps(ctx, filter)
    const all = apps.length < limits.appsPerListMax ? apps.length : await countApps(ctx, filter)
    return c.json({ total_apps: all, apps: await describeApps(ctx, apps) })
  })

  api.get('/v1/apps/:app', async (c) => {
    const app = await appOf(c, 'read')
    return c.json((await describeApps(c.var.ctx, [app]))[0])
  })

  api.delete('/v1/apps/:app', async (c) => {
    await deleteApp(c.var.ctx, await appOf(c, 'write'))
    return c.json({ ok: true }, 202)
  })
}
