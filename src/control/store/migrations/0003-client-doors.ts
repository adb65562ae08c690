import { sql, type Kysely } from 'kysely'

/** What old clients keep with the platform: addresses and certificates as records, builds that they run themselves. */
export async function up(db: Kysely<unknown>): Promise<void> {
  for (const statement of statements) await sql.raw(statement).execute(db)
}

const statements = [
  `create table ip_assignments (
    id text primary key,
    number serial unique,
    app_id text not null references apps,
    type text not null,
    address text not null,
    region text not null,
    service_name text not null,
    created_at timestamptz not null default now(),
    unique (app_id, address)
  )`,
  `create table certificates (
    app_id text not null references apps,
    hostname text not null,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    primary key (app_id, hostname)
  )`,
  `create table client_builds (
    number serial primary key,
    app_id text not null references apps,
    builder_type text not null,
    status text not null,
    created_at timestamptz not null default now(),
    finished_at timestamptz
  )`,
]
