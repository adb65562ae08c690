import type { Hono } from 'hono'
import { Fault } from '#core/fault.ts'
import {
  clientBuildEndSchema,
  clientBuildInputSchema,
  clientReleaseInputSchema,
  type OrganizationView,
  type ReleaseView,
} from '#spec/client-release.ts'
import type { Release } from '#spec/release.ts'
import { getApp, type AppRecord } from '#control/apps/index.ts'
import { appsReadBy, orgsKnownTo, requireApp, type Access } from '#control/auth/index.ts'
import { endClientBuild, noteClientBuild } from '#control/build/index.ts'
import {
  appOfRelease,
  currentReleaseTimes,
  moveClientRelease,
  startClientRelease,
} from '#control/deploy/index.ts'
import { listOrgs, personalSlug, type Org } from '#control/orgs/index.ts'
import { bodyOf } from './body.ts'
import { objectBody, orgOf, param, type Env, type Request } from './request.ts'

/** §6: an organization as this door shows it; its numeric id is a number here and text in GraphQL. */
const orgView = (org: Org): OrganizationView => ({
  id: org.id,
  internal_numeric_id: org.number,
  slug: org.slug,
  raw_slug: org.slug,
  name: org.name,
  paid_plan: true,
  personal: org.slug === personalSlug,
  billing_status: 'CURRENT',
  provisions_beta_extensions: false,
  billable: true,
  remote_builder_image: '',
})

/** A release as clients of this door decode it, and everything else that it is. */
export const releaseView = (release: Release): ReleaseView => ({
  ...release,
  strategy: release.strategy.toUpperCase(),
  stable: release.status === 'complete',
  in_progress: release.status === 'pending' || release.status === 'running',
  image_ref: release.image_ref ?? '',
})

/** The app that a body names. */
async function appNamed(c: Request, name: string, access: Access): Promise<AppRecord> {
  const app = await getApp(c.var.ctx, name)
  requireApp(c.var.caller, app, access)
  return app
}

/** §6: organizations, releases and builds of clients that drive their deploys themselves. */
export function uiexRoutes(api: Hono<Env>): void {
  organizationRoutes(api)
  releaseRoutes(api)
  buildRoutes(api)
}

function organizationRoutes(api: Hono<Env>): void {
  api.get('/api/v1/organizations', async (c) => {
    const { ctx, caller } = c.var
    const orgs = await listOrgs(ctx, orgsKnownTo(caller))
    return c.json({ organizations: orgs.map(orgView) })
  })

  api.get('/api/v1/organizations/:slug', async (c) => {
    return c.json({ organization: orgView(await orgOf(c, 'know')) })
  })

  api.post('/api/v1/organizations/:slug/builders', async (c) => {
    await orgOf(c, 'know')
    throw new Fault('not_available_yet', 'managed builders are not available; build with buildkit')
  })
}

function releaseRoutes(api: Hono<Env>): void {
  api.post('/api/v1/releases', async (c) => {
    const { app_name, definition, image, strategy } = await bodyOf(c, clientReleaseInputSchema)
    const app = await appNamed(c, app_name, 'write')
    const release = await startClientRelease(c.var.ctx, app, {
      image,
      strategy: strategy || 'rolling',
      definition: definition ?? null,
      user: c.var.caller.email,
      tokenId: c.var.caller.tokenId,
    })
    return c.json({ release: releaseView(release) }, 201)
  })

  api.patch('/api/v1/releases/:id', async (c) => {
    const id = param(c, 'id')
    const app = await appOfRelease(c.var.ctx, id)
    requireApp(c.var.caller, app, 'write')
    const { status } = await objectBody(c)
    return c.json(releaseView(await moveClientRelease(c.var.ctx, app, { id, status })))
  })

  api.get('/api/v1/releases/all_current', async (c) => {
    const { ctx, caller } = c.var
    return c.json(await currentReleaseTimes(ctx, appsReadBy(caller)))
  })
}

function buildRoutes(api: Hono<Env>): void {
  api.post('/api/v1/builds', async (c) => {
    const { app_name, builder_type } = await bodyOf(c, clientBuildInputSchema)
    const app = await appNamed(c, app_name, 'write')
    const noted = await noteClientBuild(c.var.ctx, app, builder_type ?? '')
    const { number, status, wallclockMs } = noted
    return c.json({ id: number, status, wallclock_time_ms: wallclockMs })
  })

  api.post('/api/v1/builds/finish', async (c) => {
    const { app_name, build_id, status } = await bodyOf(c, clientBuildEndSchema)
    const app = await appNamed(c, app_name, 'write')
    const build = await endClientBuild(c.var.ctx, app, {
      number: Number.isSafeInteger(build_id) ? Math.min(Number(build_id), 0x7fff_ffff) : 0,
      status: status ?? '',
    })
    return c.json({
      id: build.number,
      status: build.status,
      wallclock_time_ms: build.wallclockMs,
    })
  })

  api.post('/api/v1/builds/depot_builder', () => {
    throw new Fault(
      'not_available_yet',
      'this cloud has no Depot builders; deploy with --buildkit, --depot=false or --image, or with: hangar deploy',
    )
  })
}
