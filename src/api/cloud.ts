import type { Hono } from 'hono'
import { Fault } from '#core/fault.ts'
import { resolveImageSchema, type HostInfo } from '#spec/host-api.ts'
import { countApps, getApp } from '#control/apps/index.ts'
import { orgsKnownTo, requireApp } from '#control/auth/index.ts'
import { describeHosts, resolveImage } from '#control/hosts/index.ts'
import { ownRepository, strayMachines } from '#control/machines/index.ts'
import { listOrgs } from '#control/orgs/index.ts'
import manifest from '../../package.json' with { type: 'json' }
import { objectBody, type Env } from './request.ts'

/** Machines of any organization are named only to who may see all. */
function withoutNames<T extends HostInfo>(info: T): T {
  return info.dropped ? { ...info, dropped: { ...info.dropped, machines: [] } } : info
}

/** What Hangar's own tools ask about the cloud as a whole. */
export function cloudRoutes(api: Hono<Env>): void {
  api.get('/api/v1/viewer', async (c) => {
    const { ctx, caller } = c.var
    const orgs = await listOrgs(ctx, orgsKnownTo(caller))
    const organizations = orgs.map(({ slug, name }) => ({ slug, name }))
    return c.json({ email: caller.email, organizations })
  })

  api.get('/api/v1/status', async (c) => {
    const { ctx, caller } = c.var
    const admin = caller.scope.profile === 'admin'
    const [hosts, apps, strays] = await Promise.all([
      describeHosts(ctx),
      countApps(ctx, {}),
      // Of apps of any organization, so only for who may see all.
      admin ? strayMachines(ctx) : [],
    ])
    const { domain, http_port, https_port } = ctx.settings
    return c.json({
      version: manifest.version,
      domain,
      http_port,
      https_port,
      hosts: admin ? hosts : hosts.map(withoutNames),
      apps,
      strays,
    })
  })

  api.post('/api/v1/images/inspect', async (c) => {
    const { ctx, caller } = c.var
    const body = resolveImageSchema.safeParse(await objectBody(c))
    if (!body.success) throw new Fault('invalid', 'the body must be {"image": "…"}')
    const { image } = body.data
    const owner = ownRepository(ctx, image)
    if (owner !== undefined) requireApp(caller, await getApp(ctx, owner), 'read')
    return c.json(await resolveImage(ctx, { image }))
  })
}
