import type { Hono } from 'hono'
import {
  allocateAddress,
  listAddresses,
  releaseAddress,
  type IpAssignment,
} from '#control/addresses/index.ts'
import { ipInputSchema, type IpAssignmentView } from '#spec/address.ts'
import { bodyOf } from './body.ts'
import { appOf, orgNamed, param, type Env } from './request.ts'

const view = (one: IpAssignment): IpAssignmentView => ({
  ip: one.address,
  region: one.region,
  service_name: one.serviceName,
  shared: one.type === 'shared_v4',
  created_at: one.createdAt.toISOString(),
})

/** NET-40, §5.3. */
export function addressRoutes(api: Hono<Env>): void {
  const root = '/v1/apps/:app/ip_assignments'
  api.get(root, async (c) => {
    const ips = await listAddresses(c.var.ctx, await appOf(c, 'read'))
    return c.json({ ips: ips.map(view) })
  })

  api.post(root, async (c) => {
    const app = await appOf(c, 'write')
    const { type, region, org_slug, network, service_name } = await bodyOf(c, ipInputSchema)
    // An address in a network of another organization: reaching into that needs leave of its own.
    if (org_slug && org_slug !== app.org.slug) await orgNamed(c, org_slug, 'read')
    const made = await allocateAddress(c.var.ctx, app, {
      type,
      region,
      network,
      orgSlug: org_slug,
      serviceName: service_name,
    })
    return c.json(view(made))
  })

  api.delete(`${root}/:ip`, async (c) => {
    await releaseAddress(c.var.ctx, await appOf(c, 'write'), param(c, 'ip'))
    return c.json({ ok: true })
  })
}
