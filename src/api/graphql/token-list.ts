import { listTokens, type TokenInfo } from '#control/auth/index.ts'
import type { Graph } from './context.ts'
import { userView } from './people.ts'

/** SEC-21: a token as lists show it. The secret was shown once; `token` is the id, which revokes. */
export const tokenView = (token: TokenInfo) => ({
  id: token.id,
  name: token.name,
  token: token.id,
  tokenHeader: null,
  expiresAt: token.expiresAt.toISOString(),
  revokedAt: token.revokedAt?.toISOString() ?? null,
  user: userView(token.email),
})

/** The tokens that the caller may manage. */
export const tokensOf = async (graph: Graph, filter: { orgId: string; appId?: string }) =>
  (await listTokens(graph.ctx, graph.caller, filter)).map(tokenView)
