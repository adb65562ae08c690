import { Fault } from '#core/fault.ts'
import type { AppRecord } from '../apps/index.ts'
import type { ControlContext } from '../context.ts'

/** What a client tells of a build that it runs on its own: kept for the record, and never in its way. */
export interface ClientBuild {
  number: number
  status: string
  wallclockMs: number
}

type Store = Pick<ControlContext, 'db' | 'clock'>

export async function noteClientBuild(
  ctx: Store,
  app: Pick<AppRecord, 'id'>,
  builderType: string,
): Promise<ClientBuild> {
  const { number } = await ctx.db
    .insertInto('client_builds')
    .values({
      app_id: app.id,
      builder_type: builderType.slice(0, 100),
      status: 'running',
      finished_at: null,
    })
    .returning('number')
    .executeTakeFirstOrThrow()
  return { number, status: 'running', wallclockMs: 0 }
}

/** Fault `not_found`. */
export async function endClientBuild(
  ctx: Store,
  app: Pick<AppRecord, 'id' | 'name'>,
  { number, status }: { number: number; status: string },
): Promise<ClientBuild> {
  const finished_at = new Date(ctx.clock.now())
  const row = await ctx.db
    .updateTable('client_builds')
    .set({ status: status.slice(0, 100), finished_at })
    .where('app_id', '=', app.id)
    .where('number', '=', number)
    .returning(['status', 'created_at'])
    .executeTakeFirst()
  if (!row) throw new Fault('not_found', `app ${app.name} has no build ${number}`)
  const wallclockMs = Math.max(0, finished_at.getTime() - row.created_at.getTime())
  return { number, status: row.status, wallclockMs }
}
