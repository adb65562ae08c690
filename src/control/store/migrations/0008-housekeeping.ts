import { sql, type Kysely } from 'kysely'

/** What ended is deleted by age, deletions of apps are finished by whoever lives, and who asked is told apart by token and address. */
export async function up(db: Kysely<unknown>): Promise<void> {
  for (const statement of statements) await sql.raw(statement).execute(db)
}

const statements = [
  `create index tokens_by_maker on tokens (made_by)`,
  // "least" passes over what is null: this is when a token ended or will end.
  `create index tokens_by_end on tokens (least(expires_at, revoked_at))`,
  `alter table releases add column token_id text`,
  `alter table cli_sessions add column address text not null default ''`,
  `alter table apps add column deleting_at timestamptz`,
  `create index apps_deleting on apps (deleting_at) where deleting_at is not null and deleted_at is null`,
  `alter table machine_placements add column gone_at timestamptz`,
  `update machine_placements set gone_at = now() where status = 'gone'`,
  `create index machine_gone on machine_placements (gone_at) where gone_at is not null`,
  `alter table volume_placements add column gone_at timestamptz`,
  `update volume_placements set gone_at = now() where status = 'gone'`,
  `create index volume_gone on volume_placements (gone_at) where gone_at is not null`,
  `create index release_progress_by_age on release_progress (at)`,
  `create index builds_by_age on builds (created_at)`,
  `create index client_builds_by_age on client_builds (created_at)`,
]
