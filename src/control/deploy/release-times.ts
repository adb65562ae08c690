import { limits } from '#core/limits.ts'
import { appsMatching, type AppFilter } from '../apps/index.ts'
import type { ControlContext } from '../context.ts'

/** When the newest release of each app that is complete or running was made, as ISO 8601 by the app's name; in one query. */
export async function currentReleaseTimes(
  ctx: Pick<ControlContext, 'db'>,
  filter: AppFilter,
): Promise<Record<string, string>> {
  const rows = await ctx.db
    .selectFrom('apps')
    .innerJoinLateral(
      (eb) =>
        eb
          .selectFrom('releases')
          .select('releases.created_at as releasedAt')
          .whereRef('releases.app_id', '=', 'apps.id')
          .where('releases.status', 'in', ['complete', 'running'])
          .orderBy('version', 'desc')
          .limit(1)
          .as('newest'),
      (join) => join.onTrue(),
    )
    .select(['apps.name', 'releasedAt'])
    .where('apps.deleted_at', 'is', null)
    .where(appsMatching(filter))
    .orderBy('apps.name')
    .limit(limits.appsPerListMax)
    .execute()
  return Object.fromEntries(rows.map(({ name, releasedAt }) => [name, releasedAt.toISOString()]))
}
