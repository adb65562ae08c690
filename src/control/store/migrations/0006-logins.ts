import { sql, type Kysely } from 'kysely'

/** Logins that wait for a person, and which token made which: one that is limited manages itself and what it made. */
export async function up(db: Kysely<unknown>): Promise<void> {
  for (const statement of statements) await sql.raw(statement).execute(db)
}

const statements = [
  `alter table tokens add column made_by text references tokens`,
  // Ids and codes open the door to a token, so only their hashes are kept, as of tokens.
  `create table cli_sessions (
    id_hash bytea primary key,
    name text not null,
    target text not null,
    metadata json not null,
    challenge text,
    state text not null,
    redirect_port integer,
    failures integer not null default 0,
    code_hash bytea,
    approved_by text references tokens,
    scope jsonb,
    created_at timestamptz not null,
    expires_at timestamptz not null
  )`,
  `create index cli_sessions_by_age on cli_sessions (created_at)`,
]
