import { Fault } from '#core/fault.ts'
import { releaseStates, type Release } from '#spec/release.ts'
import { getAppById, type AppRecord } from '../apps/index.ts'
import type { ControlContext } from '../context.ts'
import { createRelease, getRelease, isOver, setReleaseStatus } from '../store/releases.ts'

/** A release whose client said nothing for longer is taken for abandoned: no deploy of a client takes as long. */
export const clientReleaseMsMax = 2 * 3_600_000

export interface ClientRelease {
  image: string
  /** As clients write it: `ROLLING`, `ROLLING_ONE` … */
  strategy: string
  definition: Record<string, unknown> | null
  user: string
}

/** DEP-1: records a release that its client drives machine by machine. */
export async function startClientRelease(
  ctx: Pick<ControlContext, 'db'>,
  app: AppRecord,
  release: ClientRelease,
): Promise<Release> {
  return createRelease(ctx, {
    appId: app.id,
    driver: 'client',
    status: 'pending',
    strategy: release.strategy.toLowerCase(),
    description: 'Deploy image',
    reason: '',
    imageRef: release.image || null,
    user: release.user,
    definition: release.definition,
    input: null,
  })
}

/** The app of a release, for callers that know only the release. Fault `not_found`. */
export async function appOfRelease(
  ctx: Pick<ControlContext, 'db'>,
  id: string,
): Promise<AppRecord> {
  const row = await ctx.db
    .selectFrom('releases')
    .select('app_id')
    .where('id', '=', id)
    .executeTakeFirst()
  if (!row) throw new Fault('not_found', `release not found: there is no release ${id}`)
  return getAppById(ctx, row.app_id)
}

/**
 * What the client says of its release. Saying the same again is no error. Faults: `invalid`; `precondition_failed` when it
 * is over or driven by the server.
 */
export async function moveClientRelease(
  ctx: Pick<ControlContext, 'db'>,
  app: AppRecord,
  { id, status }: { id: string; status: unknown },
): Promise<Release> {
  const next = releaseStates.find((one) => one === status)
  if (!next || next === 'pending') {
    throw new Fault('invalid', `status must be running, complete, failed or interrupted`)
  }
  const release = await getRelease(ctx, { appId: app.id, id })
  if (release.driver !== 'client') {
    throw new Fault('precondition_failed', `release v${release.version} is driven by the cloud`)
  }
  // A client that was interrupted may say so after it had failed: what ended it first stands.
  if (isOver(release.status) && isOver(next)) return release
  await setReleaseStatus(ctx, { id, status: next })
  return getRelease(ctx, { appId: app.id, id })
}

/** Ends the releases whose clients went away without a word. Returns how many. */
export async function interruptAbandoned(
  ctx: Pick<ControlContext, 'db' | 'clock'>,
): Promise<number> {
  const rows = await ctx.db
    .selectFrom('releases')
    .select('id')
    .where('driver', '=', 'client')
    .where('status', 'in', ['pending', 'running'])
    .where('updated_at', '<', new Date(ctx.clock.now() - clientReleaseMsMax))
    .limit(100)
    .execute()
  for (const { id } of rows) await setReleaseStatus(ctx, { id, status: 'interrupted' })
  return rows.length
}
