import { regionList, type RegionRow } from '#control/hosts/index.ts'
import { Fault } from '#core/fault.ts'
import type { Graph } from './context.ts'

const regionView = (region: RegionRow) => ({
  code: region.code,
  name: region.name,
  latitude: region.latitude,
  longitude: region.longitude,
  gatewayAvailable: region.gateway_available,
  requiresPaidPlan: region.requires_paid_plan,
  deprecated: region.deprecated,
})

/** REG-1, REG-5. */
export const regionQueries = {
  platform: (_: unknown, graph: Graph) => {
    const regions = regionList(graph.ctx)
    return { requestRegion: regions[0]?.code ?? '', regions: regions.map(regionView) }
  },

  nearestRegion: (_: unknown, graph: Graph) => {
    const [nearest] = regionList(graph.ctx)
    if (!nearest) throw new Fault('host_unreachable', 'this cloud has no region yet')
    return regionView(nearest)
  },
}
