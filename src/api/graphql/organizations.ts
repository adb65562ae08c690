import { orgsKnownTo, requireOperator } from '#control/auth/index.ts'
import { createOrg, listOrgs, personalSlug } from '#control/orgs/index.ts'
import { connection, notYet, orgNamed, orgOfId, type Graph } from './context.ts'
import { userView } from './people.ts'
import { orgView } from './views.ts'

interface OrgArgs {
  id?: string
  name?: string
  slug?: string
}

export const organizationQueries = {
  viewer: (_: unknown, graph: Graph) => userView(graph.caller.email),

  organizations: async (_: unknown, graph: Graph) => {
    const orgs = await listOrgs(graph.ctx, orgsKnownTo(graph.caller))
    return connection(orgs.map((org) => orgView(graph, org)))
  },

  organization: async (args: OrgArgs, graph: Graph) => {
    const slug = args.slug ?? args.name
    const org = args.id
      ? await orgOfId(graph, args.id, 'know')
      : await orgNamed(graph, slug ?? '', 'know')
    return orgView(graph, org)
  },

  personalOrganization: async (_: unknown, graph: Graph) =>
    orgView(graph, await orgNamed(graph, personalSlug, 'know')),
}

export const organizationMutations = {
  createOrganization: async (args: { input: { name: string } }, graph: Graph) => {
    requireOperator(graph.caller, 'create organizations')
    return { organization: orgView(graph, await createOrg(graph.ctx, args.input.name)) }
  },
  deleteOrganization: () => notYet('deleting organizations is'),
  createOrganizationInvitation: () => notYet('invitations are'),
  deleteOrganizationMembership: () => notYet('members of organizations are'),
  addAllowedReplaySourceOrgs: () => notYet('replays between organizations are'),
  removeAllowedReplaySourceOrgs: () => notYet('replays between organizations are'),
  setAllowAllCrossNetworkReplays: () => notYet('replays between networks are'),
}
