import { sql, type Kysely } from 'kysely'

/** What is looked for every few seconds, or with each request, in tables that only grow. */
export async function up(db: Kysely<unknown>): Promise<void> {
  for (const statement of statements) await sql.raw(statement).execute(db)
}

const statements = [
  `create index machine_unsettled on machine_placements (host_id) where status in ('placing', 'doomed')`,
  `create index machine_standbys on machine_placements (machine_id)
    where status = 'placed' and last_known -> 'config' ? 'standbys'`,
  `create index volume_unsettled on volume_placements (host_id)
    where status in ('placing', 'doomed', 'leaving')`,
  `create index releases_open on releases (app_id) where status in ('pending', 'running')`,
  `create index builds_open on builds (id) where status in ('waiting', 'running')`,
  `create index tokens_by_org on tokens ((scope ->> 'org_id'))`,
  `create index apps_by_org on apps (org_id) where deleted_at is null`,
]
