import { listSecrets, whereItAnswers, type AppRecord } from '#control/apps/index.ts'
import { mayUseOrg } from '#control/auth/index.ts'
import { currentRelease, listReleases } from '#control/deploy/index.ts'
import { listMachines } from '#control/machines/index.ts'
import { personalSlug, type Org } from '#control/orgs/index.ts'
import { Fault } from '#core/fault.ts'
import type { Machine } from '#spec/machine.ts'
import { addressFields } from './address-fields.ts'
import { appsOfOrg, connection, notYet, type Graph } from './context.ts'
import { imageOf } from './images.ts'
import { userView } from './people.ts'
import { releaseView } from './releases.ts'
import { tokensOf } from './token-list.ts'

/** §8.2: an organization as clients read it. */
export function orgView(graph: Graph, org: Org) {
  // A deploy token knows the basics of its organization, and not who else is there.
  const readable = () => {
    const { caller } = graph
    if (mayUseOrg(caller, org.id, 'read')) return
    throw new Fault('forbidden', `this token may not see organization ${org.slug}`)
  }
  return {
    id: org.id,
    // Text here and a number on apps: what clients decode.
    internalNumericId: String(org.number),
    slug: org.slug,
    rawSlug: org.slug,
    name: org.name,
    type: org.slug === personalSlug ? 'PERSONAL' : 'SHARED',
    paidPlan: true,
    billable: true,
    billingStatus: 'CURRENT',
    viewerRole: 'admin',
    addOnSsoLink: null,
    provisionsBetaExtensions: false,
    remoteBuilderImage: '',
    remoteBuilderApp: null,
    members: () => {
      readable()
      const node = userView(graph.caller.email)
      return { edges: [{ cursor: '1', node, joinedAt: epoch, role: 'ADMIN' }] }
    },
    apps: async () =>
      connection((await appsOfOrg(graph, org.id)).map((app) => appView(graph, app))),
    addOns: () => connection([]),
    extensionSsoLink: () => notYet('extensions are'),
    limitedAccessTokens: async () => connection(await tokensOf(graph, { orgId: org.id })),
    allowedReplaySourceOrgSlugs: [],
    allowAllCrossNetworkReplays: false,
    wireGuardPeers: () => connection([]),
    wireGuardPeer: null,
    delegatedWireGuardTokens: () => connection([]),
    loggedCertificates: () => connection([]),
  }
}

const epoch = new Date(0).toISOString()

const releasesMax = 1_000

/** §5.1: an app as clients read it. What costs a query is asked only when its field is. */
export function appView(graph: Graph, app: AppRecord) {
  const { ctx } = graph
  const { hostname } = whereItAnswers(ctx, app.name)
  const current = async () => {
    const release = await currentRelease(ctx, app)
    return release ? releaseView(release) : null
  }
  const releases = async ({ first }: { first?: number | null }) => {
    const limit = Math.max(1, Math.min(first ?? 100, releasesMax))
    return connection((await listReleases(ctx, app, limit)).map(releaseView))
  }
  return {
    id: app.id,
    internalNumericId: app.number,
    name: app.name,
    hostname,
    deployed: app.status !== 'pending',
    status: app.status,
    version: async () => (await currentRelease(ctx, app))?.version ?? 0,
    appUrl: `https://${hostname}`,
    platformVersion: 'machines',
    network: app.networkName === 'default' ? '' : app.networkName,
    networkId: app.network,
    cnameTarget: hostname,
    createdAt: app.createdAt.toISOString(),
    organization: () => orgView(graph, app.org),
    role: app.role === '' ? null : { name: app.role },
    config: async () => ({ definition: (await currentRelease(ctx, app))?.definition ?? {} }),
    services: [],
    secrets: async () =>
      (await listSecrets(ctx, app)).map(({ name, digest, created_at }) => ({
        name,
        digest,
        createdAt: created_at,
      })),
    addOns: () => connection([]),
    hostIssues: () => connection([]),
    image: async ({ ref }: { ref: string }) => imageOf(graph, app, ref),
    imageDetails: null,
    machines: async () =>
      connection((await listMachines(ctx, app)).map((machine) => machineView(graph, app, machine))),
    allocations: [],
    ...addressFields(graph, app),
    limitedAccessTokens: async () =>
      connection(await tokensOf(graph, { orgId: app.org.id, appId: app.id })),
    currentRelease: current,
    currentReleaseUnprocessed: current,
    releases,
    releasesUnprocessed: releases,
  }
}

export function machineView(graph: Graph, app: AppRecord, machine: Machine) {
  const ip = { id: machine.private_ip, family: 'v6', kind: 'privatenet', ip: machine.private_ip }
  return {
    id: machine.id,
    name: machine.name,
    state: machine.state,
    region: machine.region,
    instanceId: machine.instance_id,
    createdAt: machine.created_at,
    config: machine.config,
    app: () => appView(graph, app),
    host: null,
    ips: connection([{ ...ip, maskSize: 112 }]),
    egressIpAddresses: connection([]),
  }
}
