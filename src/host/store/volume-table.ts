import type { DatabaseSync } from 'node:sqlite'
import { Fault } from '#core/fault.ts'
import type { AppRef, HostVolumeCreate } from '#spec/host-api.ts'
import type { Volume } from '#spec/volume.ts'

export interface VolumeRecord {
  app: AppRef
  volume: Volume
  /** When a volume that was destroyed is really gone (VOL-11); milliseconds since the epoch. */
  destroyAt: number | null
  /** What it is being filled from, until it is. */
  source?: HostVolumeCreate['source']
  /** It cannot be filled, whatever is tried: `volume.error` says why. */
  hopeless?: boolean
  /** GB that it grows to, while it is `extending`. */
  extendTo?: number
  /** When its machine was last told that it could not grow by itself (VOL-10); milliseconds since the epoch. */
  growthRefusedAt?: number
}

export class VolumeTable {
  readonly #db: DatabaseSync

  constructor(db: DatabaseSync) {
    this.#db = db
  }

  all(): VolumeRecord[] {
    const rows = this.#db.prepare('SELECT volume FROM volumes').all() as { volume: string }[]
    return rows.map((row) => JSON.parse(row.volume) as VolumeRecord)
  }

  find(id: string): VolumeRecord | undefined {
    const row = this.#db.prepare('SELECT volume FROM volumes WHERE id = ?').get(id) as
      | { volume: string }
      | undefined
    return row && (JSON.parse(row.volume) as VolumeRecord)
  }

  /** @throws Fault `not_found` */
  get(id: string): VolumeRecord {
    const record = this.find(id)
    if (!record) throw new Fault('not_found', `volume not found: ${id} is not on this host`)
    return record
  }

  save(record: VolumeRecord): void {
    this.#db
      .prepare(
        'INSERT OR REPLACE INTO volumes (id, app_id, destroy_at, volume) VALUES (?, ?, ?, ?)',
      )
      .run(record.volume.id, record.app.id, record.destroyAt, JSON.stringify(record))
  }

  remove(id: string): void {
    this.#db.prepare('DELETE FROM volumes WHERE id = ?').run(id)
  }
}
