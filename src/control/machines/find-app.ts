import { getAppById, type AppRecord } from '../apps/index.ts'
import type { ControlContext } from '../context.ts'

type Store = Pick<ControlContext, 'db'>

/** The app of a machine, for callers that know only its id; with the machine's name. */
export async function findMachineApp(
  ctx: Store,
  id: string,
): Promise<{ app: AppRecord; name: string } | undefined> {
  const row = await ctx.db
    .selectFrom('machine_placements')
    .innerJoin('apps', 'apps.id', 'machine_placements.app_id')
    .select(['machine_placements.app_id', 'machine_placements.name'])
    .where('machine_id', '=', id)
    .where('apps.deleted_at', 'is', null)
    .executeTakeFirst()
  return row && { app: await getAppById(ctx, row.app_id), name: row.name }
}

/** The app of a volume, for callers that know only its id. */
export async function findVolumeApp(ctx: Store, id: string): Promise<AppRecord | undefined> {
  const row = await ctx.db
    .selectFrom('volume_placements')
    .innerJoin('apps', 'apps.id', 'volume_placements.app_id')
    .select('volume_placements.app_id')
    .where('volume_id', '=', id)
    .where('apps.deleted_at', 'is', null)
    .executeTakeFirst()
  return row && getAppById(ctx, row.app_id)
}
