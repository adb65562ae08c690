import { messageOf } from '#core/fault.ts'
import { getAppById } from './apps/index.ts'
import type { ControlContext } from './context.ts'
import { interruptAbandoned } from './deploy/index.ts'
import {
  appsWithStaleSecrets,
  destroyAbandoned,
  pushSecrets,
  standbyKeeper,
  strayKeeper,
} from './machines/index.ts'
import { destroyAbandonedVolumes, forgetRemovedVolumes } from './volumes/index.ts'

const roundMs = 2_000
/** Nothing waits for what was removed to be forgotten too. */
const forgetEveryMs = 10 * 60_000

/**
 * Brings about what could not be done when it was asked for: unwanted machines and volumes are destroyed and secrets pushed
 * as soon as their hosts answer. Each round starts from the database, so nothing is lost with the process. Resolves when
 * control has stopped.
 */
export async function startJanitor(ctx: ControlContext): Promise<void> {
  let forgetAt = 0
  const keepStandbys = standbyKeeper(ctx)
  const keepRecords = strayKeeper(ctx)
  while (!ctx.stopping.aborted) {
    await attempt(ctx, 'hosts', () => ctx.hosts.flush())
    await attempt(ctx, 'machines', () => destroyAbandoned(ctx))
    await attempt(ctx, 'releases', () => interruptAbandoned(ctx))
    await attempt(ctx, 'standbys', keepStandbys)
    await attempt(ctx, 'records', keepRecords)
    await attempt(ctx, 'volumes', () => destroyAbandonedVolumes(ctx))
    if (ctx.clock.now() >= forgetAt) {
      forgetAt = ctx.clock.now() + forgetEveryMs
      await attempt(ctx, 'removed volumes', () => forgetRemovedVolumes(ctx))
    }
    await attempt(ctx, 'secrets', async () => {
      for (const id of await appsWithStaleSecrets(ctx))
        await pushSecrets(ctx, await getAppById(ctx, id))
    })
    await ctx.clock.sleep(roundMs, ctx.stopping).catch(() => {})
  }
}

/** A round's part that fails is logged and comes again with the next round. */
async function attempt(
  ctx: ControlContext,
  part: string,
  task: () => Promise<unknown>,
): Promise<void> {
  if (ctx.stopping.aborted) return
  try {
    await task()
  } catch (error) {
    ctx.log.warn({ part, error: messageOf(error) }, 'a chore failed; it is tried again')
  }
}
