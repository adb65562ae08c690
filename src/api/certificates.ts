import type { Hono } from 'hono'
import { Fault } from '#core/fault.ts'
import {
  certificateInputSchema,
  type CertificateDetail,
  type CertificateSummary,
} from '#spec/certificate.ts'
import { listAddresses } from '#control/addresses/index.ts'
import { whereItAnswers, type AppRecord } from '#control/apps/index.ts'
import {
  addCertificate,
  getCertificate,
  listCertificates,
  removeCertificate,
  type Certificate,
} from '#control/certificates/index.ts'
import type { ControlContext } from '#control/index.ts'
import { bodyOf } from './body.ts'
import { appOf, param, type Env } from './request.ts'

/** Nothing is ordered yet: the hostname is kept, and this is what clients show of it. */
const waiting = {
  status: 'Awaiting configuration',
  configured: false,
  acme_requested: true,
} as const

const summary = (certificate: Certificate): CertificateSummary => ({
  hostname: certificate.hostname,
  ...waiting,
  acme_dns_configured: false,
  acme_alpn_configured: false,
  acme_http_configured: false,
  ownership_txt_configured: false,
  has_custom_certificate: false,
  has_fly_certificate: false,
  created_at: certificate.createdAt.toISOString(),
  updated_at: certificate.updatedAt.toISOString(),
})

async function detail(
  ctx: ControlContext,
  app: AppRecord,
  { hostname }: Certificate,
): Promise<CertificateDetail> {
  const addresses = await listAddresses(ctx, app)
  const { hostname: target } = whereItAnswers(ctx, app.name)
  const bare = hostname.replace(/^\*\./, '')
  return {
    hostname,
    ...waiting,
    certificates: [],
    validation: {
      dns_configured: false,
      alpn_configured: false,
      http_configured: false,
      ownership_txt_configured: false,
    },
    dns_requirements: {
      a: addresses.filter((one) => one.type === 'shared_v4').map((one) => one.address),
      aaaa: addresses.filter((one) => one.type === 'v6').map((one) => one.address),
      cname: target,
      acme_challenge: { name: `_acme-challenge.${bare}`, target: `${bare}.${target}` },
      ownership: {
        name: `_fly-ownership.${bare}`,
        app_value: `app-${app.number}`,
        org_value: `org-${app.org.number}`,
      },
    },
  }
}

/** §5.3: hostnames of an app as records. */
export function certificateRoutes(api: Hono<Env>): void {
  const root = '/v1/apps/:app/certificates'
  api.get(root, async (c) => {
    const app = await appOf(c, 'read')
    const all = await listCertificates(c.var.ctx, app, c.req.query('filter'))
    return c.json({ certificates: all.map(summary), total_count: all.length })
  })

  api.post(`${root}/acme`, async (c) => {
    const app = await appOf(c, 'write')
    const { hostname } = await bodyOf(c, certificateInputSchema)
    return c.json(await detail(c.var.ctx, app, await addCertificate(c.var.ctx, app, hostname)), 201)
  })

  api.post(`${root}/custom`, async (c) => {
    await appOf(c, 'write')
    throw new Fault('not_available_yet', 'certificates of your own are not available yet')
  })

  api.get(`${root}/:hostname`, async (c) => {
    const app = await appOf(c, 'read')
    const certificate = await getCertificate(c.var.ctx, app, param(c, 'hostname'))
    return c.json(await detail(c.var.ctx, app, certificate))
  })

  api.post(`${root}/:hostname/check`, async (c) => {
    const app = await appOf(c, 'read')
    const certificate = await getCertificate(c.var.ctx, app, param(c, 'hostname'))
    return c.json(await detail(c.var.ctx, app, certificate))
  })

  for (const path of [`${root}/:hostname`, `${root}/:hostname/acme`]) {
    api.delete(path, async (c) => {
      await removeCertificate(c.var.ctx, await appOf(c, 'write'), param(c, 'hostname'))
      return c.json({ ok: true })
    })
  }

  api.delete(`${root}/:hostname/custom`, async (c) => {
    await appOf(c, 'write')
    throw new Fault('not_found', `${param(c, 'hostname')} has no certificate of its own`)
  })
}
