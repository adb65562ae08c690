import type { Hono } from 'hono'
import { Fault } from '#core/fault.ts'
import { resolveGuest } from '#spec/guest-size.ts'
import { placementsInputSchema } from '#spec/platform.ts'
import { placeableRegions, regionList } from '#control/hosts/index.ts'
import { bodyOf } from './body.ts'
import type { Env } from './request.ts'

/** §9, MCH-91. */
export function platformRoutes(api: Hono<Env>): void {
  api.get('/v1/platform/regions', (c) => {
    const regions = regionList(c.var.ctx)
    return c.json({ Regions: regions, Nearest: regions[0]?.code ?? '' })
  })

  api.post('/v1/platform/placements', async (c) => {
    const { region, count, compute } = await bodyOf(c, placementsInputSchema)
    const regions = await placeableRegions(c.var.ctx, {
      region: region ?? '',
      guest: resolveGuest({ guest: compute ?? undefined }),
      count: count || 1,
    })
    if (regions.length === 0) {
      const known = regionList(c.var.ctx).map(({ code }) => code)
      throw new Fault(
        'insufficient_capacity',
        `could not reserve resource for machine: no region of "${region || 'any'}" has room for ${count || 1} of that size; regions of this cloud: ${known.join(', ')}`,
      )
    }
    return c.json({
      Regions: regions.map((Region) => ({ Region, Count: count || 1, Concurrency: count || 1 })),
    })
  })
}
