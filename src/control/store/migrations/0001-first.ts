import { sql, type Kysely } from 'kysely'

export async function up(db: Kysely<unknown>): Promise<void> {
  for (const statement of statements) await sql.raw(statement).execute(db)
}

const statements = [
  `create table orgs (
    id text primary key,
    number serial unique,
    slug text not null unique,
    name text not null,
    created_at timestamptz not null default now()
  )`,
  `create table networks (
    number serial primary key,
    org_id text not null references orgs,
    name text not null,
    created_at timestamptz not null default now(),
    unique (org_id, name)
  )`,
  `create table tokens (
    id text primary key,
    name text not null,
    hash bytea not null unique,
    email text not null,
    scope jsonb not null,
    created_at timestamptz not null default now(),
    expires_at timestamptz not null,
    revoked_at timestamptz
  )`,
  `create table apps (
    id text primary key,
    number serial unique,
    name text not null,
    org_id text not null references orgs,
    network integer not null references networks,
    status text not null default 'pending',
    secrets_version integer not null default 0,
    created_at timestamptz not null default now(),
    deleted_at timestamptz
  )`,
  // SEC-30: unique in the whole cloud, and free again the moment an app is deleted.
  `create unique index apps_live_name on apps (name) where deleted_at is null`,
  `create table secrets (
    app_id text not null references apps,
    name text not null,
    sealed bytea not null,
    digest text not null,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    primary key (app_id, name)
  )`,
  `create table secret_pushes (
    app_id text not null references apps,
    host_id text not null,
    version integer not null,
    primary key (app_id, host_id)
  )`,
  `create table hosts (
    id text primary key,
    row jsonb not null,
    first_seen_at timestamptz not null default now(),
    last_seen_at timestamptz not null default now()
  )`,
  `create table machine_placements (
    machine_id text primary key,
    app_id text not null references apps,
    name text not null,
    region text not null,
    host_id text not null,
    host_api text not null,
    status text not null,
    placed_by text not null,
    last_known jsonb,
    created_at timestamptz not null default now()
  )`,
  // MCH-10: a machine's name is unique in its app while it exists.
  `create unique index machine_live_name on machine_placements (app_id, name)
    where status in ('placing', 'placed')`,
  `create index machine_by_app on machine_placements (app_id)`,
  `create table volume_placements (
    volume_id text primary key,
    app_id text not null references apps,
    name text not null,
    region text not null,
    size_gb integer not null,
    host_id text not null,
    host_api text not null,
    status text not null,
    placed_by text not null,
    last_known jsonb,
    options jsonb not null default '{}',
    created_at timestamptz not null default now()
  )`,
  `create index volume_by_app on volume_placements (app_id)`,
  `create table releases (
    id text primary key,
    app_id text not null references apps,
    version integer not null,
    status text not null,
    driver text not null,
    strategy text not null,
    description text not null,
    reason text not null,
    image_ref text,
    "user" text not null,
    definition json,
    input json,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    unique (app_id, version)
  )`,
  `create table release_progress (
    release_id text not null references releases,
    seq integer not null,
    at timestamptz not null default now(),
    level text not null,
    message text not null,
    machine text,
    status text,
    primary key (release_id, seq)
  )`,
  `create table builds (
    id text primary key,
    app_id text not null references apps,
    status text not null,
    runner text not null,
    image_ref text,
    digest text,
    size bigint,
    error text,
    created_at timestamptz not null default now(),
    finished_at timestamptz
  )`,
]
