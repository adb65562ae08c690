import { isFault, messageOf } from '#core/fault.ts'
import type { ControlContext } from '../context.ts'
import { callHost, type HostRef } from '../hosts/index.ts'
import { abandonedPlacements, erasePlacement, markGone } from './placements.ts'

/** Of a machine that it does not know a host remembers this, and refuses to make it later. */
export async function destroyUnwanted(
  ctx: ControlContext,
  machine: HostRef & { id: string },
): Promise<void> {
  await callHost(ctx, machine, {
    method: 'DELETE',
    path: `/v1/machines/${machine.id}`,
    query: { kill: 'true' },
    timeoutMs: 30_000,
    source: 'flyd',
  })
}

/**
 * Destroys machines that nobody wants: of deleted apps, and those a host may have made without telling us. Safe to repeat;
 * a silent host is passed over until it answers. Returns how many are left.
 */
export async function destroyAbandoned(
  ctx: ControlContext,
  options: { appId?: string } = {},
): Promise<number> {
  const abandoned = await abandonedPlacements(ctx, { now: ctx.clock.now(), ...options })
  const byHost = Map.groupBy(abandoned, (placement) => placement.host_id)
  const left = await Promise.all(
    [...byHost.values()].map(async (placements) => {
      let count = placements.length
      for (const placement of placements) {
        try {
          await destroyUnwanted(ctx, { ...placement, id: placement.machine_id })
        } catch (error) {
          if (isFault(error, 'host_unreachable')) break
          if (!isFault(error, 'not_found')) {
            ctx.log.warn(
              { machine: placement.machine_id, error: messageOf(error) },
              'an unwanted machine could not be destroyed; tried again later',
            )
            continue
          }
        }
        if (placement.last_known) await markGone(ctx, placement.machine_id)
        else await erasePlacement(ctx, placement.machine_id)
        count--
      }
      return count
    }),
  )
  return left.reduce((sum, count) => sum + count, 0)
}
