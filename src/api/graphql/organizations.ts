import { Fault } from '#core/fault.ts'
import { createOrg, listOrgs, personalSlug, type Org } from '#control/orgs/index.ts'
import { connection, notYet, orgNamed, orgOfId, type Graph } from './context.ts'
import { userView } from './people.ts'
import { orgView } from './views.ts'

const visibleOrgs = async (graph: Graph): Promise<Org[]> => {
  const { scope } = graph.caller
  return listOrgs(graph.ctx, scope.profile === 'admin' ? undefined : (scope.org_id ?? ''))
}

interface OrgArgs {
  id?: string
  name?: string
  slug?: string
}

export const organizationQueries = {
  viewer: (_: unknown, graph: Graph) => userView(graph.caller.email),

  organizations: async (_: unknown, graph: Graph) =>
    connection((await visibleOrgs(graph)).map((org) => orgView(graph, org))),

  organization: async (args: OrgArgs, graph: Graph) => {
    const slug = args.slug ?? args.name
    const org = args.id
      ? await orgOfId(graph, args.id, 'read')
      : await orgNamed(graph, slug ?? '', 'read')
    return orgView(graph, org)
  },

  personalOrganization: async (_: unknown, graph: Graph) =>
    orgView(graph, await orgNamed(graph, personalSlug, 'read')),
}

export const organizationMutations = {
  createOrganization: async (args: { input: { name: string } }, graph: Graph) => {
    if (graph.caller.scope.profile !== 'admin') {
      throw new Fault('forbidden', 'this token may not create organizations')
    }
    return { organization: orgView(graph, await createOrg(graph.ctx, args.input.name)) }
  },
  deleteOrganization: () => notYet('deleting organizations is'),
  createOrganizationInvitation: () => notYet('invitations are'),
  deleteOrganizationMembership: () => notYet('members of organizations are'),
  addAllowedReplaySourceOrgs: () => notYet('replays between organizations are'),
  removeAllowedReplaySourceOrgs: () => notYet('replays between organizations are'),
  setAllowAllCrossNetworkReplays: () => notYet('replays between networks are'),
}
