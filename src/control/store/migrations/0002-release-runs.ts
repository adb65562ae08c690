import { sql, type Kysely } from 'kysely'

/** Who drives a server release right now and how far it has come: what is needed to go on with it after a crash. */
export async function up(db: Kysely<unknown>): Promise<void> {
  await sql
    .raw(
      `create table release_runs (
        release_id text primary key references releases,
        runner text not null,
        seen_at timestamptz not null default now(),
        step jsonb not null
      )`,
    )
    .execute(db)
}
