import { allocateAddress, releaseAddress } from '#control/addresses/index.ts'
import { Fault } from '#core/fault.ts'
import { addressView } from './address-fields.ts'
import { appOfInput, notYet, orgOfId, type Graph } from './context.ts'
import { appView } from './views.ts'

interface AllocateInput {
  appId: string
  type: string
  region?: string | null
  organizationId?: string | null
  network?: string | null
  serviceName?: string | null
}

export const addressMutations = {
  allocateIpAddress: async ({ input }: { input: AllocateInput }, graph: Graph) => {
    const app = await appOfInput(graph, input.appId, 'write')
    const org = input.organizationId
      ? await orgOfId(graph, input.organizationId, 'read')
      : undefined
    const made = await allocateAddress(graph.ctx, app, {
      type: input.type,
      region: input.region,
      serviceName: input.serviceName,
      network: input.network,
      ...(org ? { orgSlug: org.slug } : {}),
    })
    return { app: appView(graph, app), ipAddress: addressView(made) }
  },

  releaseIpAddress: async (
    {
      input,
    }: { input: { appId?: string | null; ip?: string | null; ipAddressId?: string | null } },
    graph: Graph,
  ) => {
    const app = await appOfInput(graph, input.appId, 'write')
    const address = input.ip ?? input.ipAddressId
    if (!address) throw new Fault('invalid', 'releaseIpAddress needs "ip" or "ipAddressId"')
    await releaseAddress(graph.ctx, app, address)
    return { app: appView(graph, app), clientMutationId: null }
  },

  allocateEgressIpAddress: () => notYet('egress addresses are'),
  releaseEgressIpAddress: () => notYet('egress addresses are'),
}
