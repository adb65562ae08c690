import type { DatabaseSync } from 'node:sqlite'
import type { FaultCode } from '#core/fault.ts'
import type { AppRef } from '#spec/host-api.ts'
import type { Snapshot } from '#spec/volume.ts'

export interface SnapshotRecord {
  app: AppRef
  snapshot: Snapshot
  /** Only for the copy to another host, which removes it. */
  transfer: boolean
  /** When it is gone (VOL-14); milliseconds since the epoch. Not moved by a later change of the volume's retention. */
  expiresAt: number
  /** The volume's last write that is surely in it; milliseconds since the epoch. */
  changedAt: number | null
  /** Of one that failed: the code of the fault that `snapshot.error` tells. */
  failure?: FaultCode
}

export class SnapshotTable {
  readonly #db: DatabaseSync

  constructor(db: DatabaseSync) {
    this.#db = db
  }

  all(): SnapshotRecord[] {
    return this.#parsed(this.#db.prepare('SELECT record FROM snapshots').all())
  }

  /** Oldest first. */
  ofVolume(volume: string): SnapshotRecord[] {
    const sql = 'SELECT record FROM snapshots WHERE volume_id = ? ORDER BY rowid'
    return this.#parsed(this.#db.prepare(sql).all(volume))
  }

  find(id: string): SnapshotRecord | undefined {
    return this.#parsed(this.#db.prepare('SELECT record FROM snapshots WHERE id = ?').all(id))[0]
  }

  save(record: SnapshotRecord): void {
    this.#db
      .prepare(
        `INSERT INTO snapshots (id, volume_id, record) VALUES (?, ?, ?)
         ON CONFLICT (id) DO UPDATE SET record = excluded.record`,
      )
      .run(record.snapshot.id, record.snapshot.volume_id, JSON.stringify(record))
  }

  remove(id: string): void {
    this.#db.prepare('DELETE FROM snapshots WHERE id = ?').run(id)
  }

  #parsed(rows: unknown[]): SnapshotRecord[] {
    return (rows as { record: string }[]).map((row) => JSON.parse(row.record) as SnapshotRecord)
  }
}
