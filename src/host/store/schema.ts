/** Each entry brings a store from version i to i + 1. Entries are only ever added. */
export const migrations: readonly string[] = [
  `
  CREATE TABLE machines (
    id TEXT PRIMARY KEY,
    app_id TEXT NOT NULL,
    slot INTEGER NOT NULL,
    destroyed_at INTEGER,
    record TEXT NOT NULL
  ) STRICT;
  CREATE UNIQUE INDEX machines_slot ON machines (slot) WHERE destroyed_at IS NULL;
  CREATE TABLE events (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    machine_id TEXT NOT NULL,
    event TEXT NOT NULL
  ) STRICT;
  CREATE INDEX events_machine ON events (machine_id, seq);
  CREATE TABLE versions (
    machine_id TEXT NOT NULL,
    version TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    config TEXT NOT NULL,
    PRIMARY KEY (machine_id, version)
  ) STRICT;
  CREATE TABLE leases (
    machine_id TEXT PRIMARY KEY,
    nonce TEXT NOT NULL,
    owner TEXT NOT NULL,
    description TEXT NOT NULL,
    expires_at INTEGER NOT NULL
  ) STRICT;
  CREATE TABLE app_secrets (
    app_id TEXT PRIMARY KEY,
    version INTEGER NOT NULL,
    sealed BLOB NOT NULL
  ) STRICT;
  CREATE TABLE volumes (
    id TEXT PRIMARY KEY,
    app_id TEXT NOT NULL,
    destroy_at INTEGER,
    volume TEXT NOT NULL
  ) STRICT;
  CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT;
  `,
  `
  CREATE TABLE snapshots (
    id TEXT PRIMARY KEY,
    volume_id TEXT NOT NULL,
    record TEXT NOT NULL
  ) STRICT;
  CREATE INDEX snapshots_volume ON snapshots (volume_id);
  `,
]
