import type { DatabaseSync } from 'node:sqlite'

export interface LeaseRecord {
  machineId: string
  nonce: string
  owner: string
  description: string
  /** Milliseconds since the epoch. */
  expiresAt: number
}

export class LeaseTable {
  readonly #db: DatabaseSync

  constructor(db: DatabaseSync) {
    this.#db = db
  }

  find(machine: string): LeaseRecord | undefined {
    const row = this.#db
      .prepare('SELECT nonce, owner, description, expires_at FROM leases WHERE machine_id = ?')
      .get(machine) as
      | { nonce: string; owner: string; description: string; expires_at: number }
      | undefined
    return (
      row && {
        machineId: machine,
        nonce: row.nonce,
        owner: row.owner,
        description: row.description,
        expiresAt: row.expires_at,
      }
    )
  }

  save(lease: LeaseRecord): void {
    this.#db
      .prepare(
        `INSERT OR REPLACE INTO leases (machine_id, nonce, owner, description, expires_at)
         VALUES (?, ?, ?, ?, ?)`,
      )
      .run(lease.machineId, lease.nonce, lease.owner, lease.description, lease.expiresAt)
  }

  remove(machine: string): void {
    this.#db.prepare('DELETE FROM leases WHERE machine_id = ?').run(machine)
  }
}
