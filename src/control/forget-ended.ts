import { sql, type RawBuilder } from 'kysely'
import { limits } from '#core/limits.ts'
import type { ControlContext } from './context.ts'

/** Rows that one statement deletes, and statements for one table in one round: nobody waits for more than a moment. */
const rowsMax = 1_000
const statementsMax = 200

type Table =
  | 'machine_placements'
  | 'volume_placements'
  | 'tokens'
  | 'release_progress'
  | 'builds'
  | 'client_builds'

/** What is over for longer than anybody looks back; each condition begins with what its table has an index on. */
const endedBefore = (at: Date): Record<Table, RawBuilder<unknown>> => ({
  // MCH-37: destroyed ones stay readable until then.
  machine_placements: sql`gone_at < ${at} and status = 'gone'`,
  volume_placements: sql`gone_at < ${at} and status = 'gone'`,
  // While there is one that it made, that one's maker can be named: revoking goes down along the makers.
  tokens: sql`least(expires_at, revoked_at) < ${at}
    and not exists (select from tokens made where made.made_by = ended.id)
    and not exists (select from cli_sessions where approved_by = ended.id)`,
  // Of a release that is over and has no lines, its last one is made up when it is read.
  release_progress: sql`at < ${at} and not exists (
    select from releases where id = ended.release_id and status in ('pending', 'running'))`,
  builds: sql`created_at < ${at} and status not in ('waiting', 'running')`,
  client_builds: sql`created_at < ${at}`,
})

/** Deletes the records of what ended longer than `limits.endedKeptMs` ago. Returns how many. */
export async function forgetEnded(ctx: Pick<ControlContext, 'db' | 'clock'>): Promise<number> {
  let count = 0
  const conditions = endedBefore(new Date(ctx.clock.now() - limits.endedKeptMs))
  for (const [name, condition] of Object.entries(conditions)) {
    const table = sql.table(name)
    for (let statement = 0; statement < statementsMax; statement++) {
      const { numAffectedRows = 0n } = await sql`
        delete from ${table} where ctid = any (array(
          select ctid from ${table} ended where ${condition} limit ${rowsMax}))`.execute(ctx.db)
      if (numAffectedRows === 0n) break
      count += Number(numAffectedRows)
    }
  }
  return count
}
