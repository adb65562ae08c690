import { listAddresses, type IpAssignment } from '#control/addresses/index.ts'
import type { AppRecord } from '#control/apps/index.ts'
import { connection, type Graph } from './context.ts'

/** NET-40: the fields of an app that are about its addresses. The shared one stands apart, as clients read it. */
export function addressFields(graph: Graph, app: AppRecord) {
  return {
    ipAddresses: async () => {
      const all = await listAddresses(graph.ctx, app)
      return connection(all.filter((one) => one.type !== 'shared_v4').map(addressView))
    },
    sharedIpAddress: async () => {
      const all = await listAddresses(graph.ctx, app)
      return all.find((one) => one.type === 'shared_v4')?.address ?? null
    },
    egressIpAddresses: () => connection([]),
  }
}

export const addressView = (one: IpAssignment) => ({
  id: one.id,
  address: one.address,
  type: one.type,
  region: one.region,
  createdAt: one.createdAt.toISOString(),
  network: null,
  serviceName: one.serviceName,
})
