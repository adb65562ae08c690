import { Fault } from '#core/fault.ts'
import { parseGoDuration } from '#core/units.ts'
import { createToken, findToken, mayUseOrg, requireApp, revokeToken } from '#control/auth/index.ts'
import { appOfInput, orgOfId, type Graph } from './context.ts'
import { tokensOf } from './token-list.ts'

interface CreateInput {
  name: string
  organizationId: string
  profile: string
  profileParams?: unknown
  expiry?: string | null
}

/** Profiles of clients, and what they may do here. SEC-20. */
async function scopeOf(graph: Graph, input: CreateInput) {
  const { caller } = graph
  const { app_id: wanted } = (input.profileParams ?? {}) as { app_id?: unknown }
  if (input.profile === 'deploy') {
    const app = await appOfInput(graph, typeof wanted === 'string' ? wanted : '', 'write')
    requireApp(caller, app, 'write')
    return { profile: 'deploy', org_id: app.org.id, app_id: app.id } as const
  }
  const org = await orgOfId(graph, input.organizationId, 'write')
  if (input.profile === 'deploy_organization' || input.profile === 'org') {
    return { profile: 'org', org_id: org.id } as const
  }
  if (input.profile === 'readonly' || input.profile === 'identity') {
    return { profile: 'readonly', org_id: org.id } as const
  }
  throw new Fault(
    'not_available_yet',
    `tokens of profile ${input.profile} are not available yet; use deploy, deploy_organization or readonly`,
  )
}

const lifeMsMax = 100 * 365 * 24 * 3_600_000

function lifeOf(expiry: string | null | undefined): number | undefined {
  if (!expiry) return undefined
  const lifeMs = parseGoDuration(expiry)
  if (lifeMs === undefined || lifeMs <= 0 || lifeMs > lifeMsMax) {
    throw new Fault('invalid', `expiry must be a duration such as 24h, not ${expiry}`)
  }
  return lifeMs
}

export const tokenMutations = {
  createLimitedAccessToken: async (args: { input: CreateInput }, graph: Graph) => {
    const { input } = args
    const lifeMs = lifeOf(input.expiry)
    const scope = await scopeOf(graph, input)
    const { email } = graph.caller
    const name = input.name.slice(0, 100)
    const { id, secret } = await createToken(graph.ctx, {
      name,
      email,
      scope,
      ...(lifeMs === undefined ? {} : { lifeMs }),
    })
    const [made] = (await tokensOf(graph, { orgId: scope.org_id })).filter((one) => one.id === id)
    return { limitedAccessToken: { ...made, tokenHeader: secret } }
  },

  deleteLimitedAccessToken: async (
    args: { input: { id?: string | null; token?: string | null } },
    graph: Graph,
  ) => {
    const id = args.input.id ?? args.input.token ?? ''
    const token = await findToken(graph.ctx, id)
    const orgId = token?.scope.org_id
    const may =
      orgId === undefined
        ? graph.caller.scope.profile === 'admin'
        : mayUseOrg(graph.caller, orgId, 'write') || graph.caller.tokenId === id
    if (!token || !may) throw new Fault('not_found', `there is no token ${id} that you may revoke`)
    await revokeToken(graph.ctx, id)
    return { token: id }
  },

  logOut: async (_: unknown, graph: Graph) => {
    // The operator's first token is the key to the cloud: leaving a shell must not throw it away.
    if (graph.caller.scope.profile !== 'admin') await revokeToken(graph.ctx, graph.caller.tokenId)
    return { ok: true }
  },
}
