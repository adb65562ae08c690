import { defaultRegions } from '#spec/regions.ts'
import type { ResolvedGuest } from '#spec/guest-size.ts'
import type { ControlContext } from '../context.ts'
import { place, regionPreferences, regionsOf } from '../schedule/index.ts'
import { freshHosts } from './host-client.ts'

export interface RegionRow {
  code: string
  name: string
  latitude: number
  longitude: number
  geo_region: string
  gateway_available: boolean
  requires_paid_plan: boolean
  deprecated: boolean
  /** Megabytes of memory that its hosts have free. */
  capacity: number
  mpg_available: boolean
}

/** The codes of this cloud's regions: the configured ones in their order, then those that only hosts name. */
export function knownRegions(ctx: Pick<ControlContext, 'settings' | 'hosts'>): string[] {
  const named = ctx.hosts.list().map(({ row }) => row.region)
  return [...new Set([...ctx.settings.regions, ...named])]
}

/** REG-1: this cloud's regions as clients read them; the first is the nearest (REG-5 needs an edge per region). */
export function regionList(ctx: Pick<ControlContext, 'settings' | 'hosts'>): RegionRow[] {
  return knownRegions(ctx).map((code) => {
    const known = defaultRegions.find((region) => region.code === code)
    const free = ctx.hosts
      .list()
      .filter(({ row }) => row.region === code)
      .map(({ row }) => Math.max(0, row.capacity.memory_mb - row.used.memory_mb))
    return {
      code,
      name: known?.name ?? code,
      latitude: known?.latitude ?? 0,
      longitude: known?.longitude ?? 0,
      geo_region: known?.geo_region ?? '',
      gateway_available: true,
      requires_paid_plan: false,
      deprecated: false,
      capacity: free.reduce((sum, memory) => sum + memory, 0),
      mpg_available: false,
    }
  })
}

/** MCH-91: the regions, best first, that have room for `count` such machines. Empty when none has. */
export async function placeableRegions(
  ctx: ControlContext,
  want: { region: string; guest: ResolvedGuest; count: number },
): Promise<string[]> {
  const known = knownRegions(ctx)
  const wanted = regionPreferences(want.region)
  const codes = (wanted.length > 0 ? wanted : ['any']).flatMap((one) => regionsOf(one, known))
  const hosts = await freshHosts(ctx)
  return [...new Set(codes)].filter((code) => {
    const demand = { regions: [code], guest: want.guest, count: want.count }
    return !('error' in place({ hosts, now: ctx.clock.now(), demand }))
  })
}
