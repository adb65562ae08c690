import { Fault } from '#core/fault.ts'
import { parseGoDuration } from '#core/units.ts'
import { logOut, mintToken, revokeTokenFor } from '#control/auth/index.ts'
import { appOfInput, orgOfId, type Graph } from './context.ts'
import { tokenView } from './token-list.ts'

interface CreateInput {
  name: string
  organizationId: string
  profile: string
  profileParams?: unknown
  expiry?: string | null
}

/**
 * Clients make these themselves out of a wider token, which must be a macaroon; with ours they fail and leave the wider one
 * behind. The name they give by default is all that tells them apart from a plain request.
 */
const narrowedByClient: Record<string, string> = {
  'Read-only org token': 'read-only tokens; use: hangar tokens create readonly ORG',
  'WireGuard token': 'WireGuard tokens; they come with the network',
  'flyctl ssh token': 'SSH tokens; they come with the network',
  'flyctl machine-exec token': 'machine-exec tokens; use: hangar tokens create deploy -a APP',
}

function refuseNarrowedByClient({ name }: CreateInput): void {
  const what = narrowedByClient[name]
  if (what === undefined) return
  throw new Fault(
    'not_available_yet',
    `tokens are not macaroons yet, so this client cannot make ${what}`,
  )
}

/** Profiles of clients, and what they may do here. SEC-20. */
async function scopeOf(graph: Graph, input: CreateInput) {
  const { app_id: wanted } = (input.profileParams ?? {}) as { app_id?: unknown }
  const appId = typeof wanted === 'string' && wanted !== '' ? wanted : undefined
  const { profile } = input
  if (profile === 'admin') return { profile } as const
  if (profile === 'deploy' || (profile === 'readonly' && appId !== undefined)) {
    const app = await appOfInput(graph, appId, 'read')
    return { profile, org_id: app.org.id, app_id: app.id } as const
  }
  const org = await orgOfId(graph, input.organizationId, 'know')
  if (profile === 'deploy_organization' || profile === 'org') {
    return { profile: 'org', org_id: org.id } as const
  }
  if (profile === 'readonly' || profile === 'identity') return { profile, org_id: org.id } as const
  throw new Fault(
    'not_available_yet',
    `tokens of profile ${profile} are not available yet; use deploy, deploy_organization or readonly`,
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
    refuseNarrowedByClient(input)
    const lifeMs = lifeOf(input.expiry)
    const scope = await scopeOf(graph, input)
    const name = input.name.slice(0, 100)
    const { secret, ...made } = await mintToken(graph.ctx, graph.caller, { name, scope, lifeMs })
    return { limitedAccessToken: { ...tokenView(made), tokenHeader: secret } }
  },

  deleteLimitedAccessToken: async (
    args: { input: { id?: string | null; token?: string | null } },
    graph: Graph,
  ) => {
    const id = args.input.id ?? args.input.token ?? ''
    const madeRevoked = await revokeTokenFor(graph.ctx, graph.caller, id)
    return { token: id, madeRevoked }
  },

  logOut: async (_: unknown, graph: Graph) => {
    await logOut(graph.ctx, graph.caller)
    return { ok: true }
  },
}
