import { listTokens } from '#control/auth/index.ts'
import type { Graph } from './context.ts'
import { userView } from './people.ts'

/** SEC-21: tokens as lists show them. The secret was shown once; `token` is the id, which revokes. */
export async function tokensOf(graph: Graph, filter: { orgId: string; appId?: string }) {
  return (await listTokens(graph.ctx, filter)).map((token) => ({
    id: token.id,
    name: token.name,
    token: token.id,
    tokenHeader: null,
    expiresAt: token.expiresAt.toISOString(),
    revokedAt: token.revokedAt?.toISOString() ?? null,
    user: userView(token.email),
  }))
}
