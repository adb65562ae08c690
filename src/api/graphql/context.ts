import { Fault } from '#core/fault.ts'
import type { ControlContext } from '#control/index.ts'
import { findApp, getAppById, listApps, type AppRecord } from '#control/apps/index.ts'
import {
  appsReadBy,
  mayUseOrg,
  requireApp,
  requireOrg,
  type Access,
  type Caller,
  type OrgAccess,
} from '#control/auth/index.ts'
import { findOrg, findOrgById, type Org } from '#control/orgs/index.ts'

/** What every resolver works with. */
export interface Graph {
  ctx: ControlContext
  caller: Caller
  requestId: string
  /** Apps by organization: a query may come back to the same one thousands of times. */
  apps: Map<string, Promise<AppRecord[]>>
}

/** The apps of an organization that the caller may see, looked up once in a query. */
export async function appsOfOrg(graph: Graph, orgId: string): Promise<AppRecord[]> {
  if (!mayUseOrg(graph.caller, orgId, 'know')) return []
  let found = graph.apps.get(orgId)
  if (!found) {
    const filter = { ...appsReadBy(graph.caller), orgId }
    graph.apps.set(orgId, (found = listApps(graph.ctx, filter)))
  }
  return found
}

/** The app by name, as clients look it up; the words of the fault are what they look for. */
export async function appNamed(graph: Graph, name: string, access: Access): Promise<AppRecord> {
  const app = await findApp(graph.ctx, name)
  if (!app) throw new Fault('not_found', `Could not find App "${name}"`)
  requireApp(graph.caller, app, access)
  return app
}

/** The app that an input's `appId` means: clients put the id or the name there. */
export async function appOfInput(
  graph: Graph,
  idOrName: string | null | undefined,
  access: Access,
): Promise<AppRecord> {
  const wanted = idOrName ?? ''
  if (!wanted.startsWith('app_')) return appNamed(graph, wanted, access)
  const app = await getAppById(graph.ctx, wanted)
  requireApp(graph.caller, app, access)
  return app
}

/** The organization with this slug. Faults: `not_found`, `forbidden`. */
export async function orgNamed(graph: Graph, slug: string, access: OrgAccess): Promise<Org> {
  const org = await findOrg(graph.ctx, slug)
  if (!org) throw new Fault('not_found', `Could not find Organization "${slug}"`)
  requireOrg(graph.caller, org, access)
  return org
}

/** The organization with this id, or slug where a client gives that. Faults: `not_found`, `forbidden`. */
export async function orgOfId(graph: Graph, id: string, access: OrgAccess): Promise<Org> {
  const org = await findOrgById(graph.ctx, id)
  if (!org) return orgNamed(graph, id, access)
  requireOrg(graph.caller, org, access)
  return org
}

/** What a later version of Hangar answers. */
export function notYet(what: string): never {
  throw new Fault('not_available_yet', `${what} not available yet in this cloud`)
}

/** A list as connections show it. The answer holds all of it: limits are the lists' own. */
export const connection = <T>(nodes: readonly T[]) => ({
  nodes,
  totalCount: nodes.length,
  pageInfo: { hasNextPage: false, hasPreviousPage: false, endCursor: null, startCursor: null },
})
