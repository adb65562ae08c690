import { messageOf } from '#core/fault.ts'
import { getAppById } from './apps/index.ts'
import type { ControlContext } from './context.ts'
import { interruptAbandoned } from './deploy/index.ts'
import { forgetEnded } from './forget-ended.ts'
import {
  appsWithStaleSecrets,
  destroyAbandoned,
  finishDeletions,
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
 * as soon as their hosts answer. Each round starts from the database, so nothing is lost with the process. The chores go
 * side by side: one that waits for a machine to stop must not hold up a standby. Resolves when control has stopped.
 */
export async function startJanitor(ctx: ControlContext): Promise<void> {
  const chores: Record<string, Chore> = {
    hosts: () => ctx.hosts.flush(),
    machines: () => destroyAbandoned(ctx),
    releases: () => interruptAbandoned(ctx),
    deletions: () => finishDeletions(ctx),
    standbys: standbyKeeper(ctx),
    records: strayKeeper(ctx),
    volumes: () => destroyAbandonedVolumes(ctx),
    secrets: async () => {
      for (const id of await appsWithStaleSecrets(ctx))
        await pushSecrets(ctx, await getAppById(ctx, id))
    },
  }
  const rare: Record<string, Chore> = {
    'removed volumes': () => forgetRemovedVolumes(ctx),
    'ended records': () => forgetEnded(ctx),
  }
  await Promise.all([
    ...Object.entries(chores).map(([name, chore]) =>
      repeat(ctx, { name, chore, everyMs: roundMs }),
    ),
    ...Object.entries(rare).map(([name, chore]) =>
      repeat(ctx, { name, chore, everyMs: forgetEveryMs }),
    ),
  ])
}

type Chore = () => Promise<unknown>

/** A round that fails is logged and comes again. */
async function repeat(
  ctx: ControlContext,
  { name, chore, everyMs }: { name: string; chore: Chore; everyMs: number },
): Promise<void> {
  while (!ctx.stopping.aborted) {
    try {
      await chore()
    } catch (error) {
      ctx.log.warn({ chore: name, error: messageOf(error) }, 'a chore failed; it is tried again')
    }
    await ctx.clock.sleep(everyMs, ctx.stopping).catch(() => {})
  }
}
