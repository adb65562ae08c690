import type { DatabaseSync } from 'node:sqlite'
import { Fault } from '#core/fault.ts'
import { limits } from '#core/limits.ts'
import type { MachineRecord } from './record.ts'

/** The smallest machine number: 0 and 1 are the network's own. */
const firstIndex = 2

/** Machines in memory and on disk; a write is on disk before `save` returns. */
export class MachineTable {
  readonly #db: DatabaseSync
  readonly #records = new Map<string, MachineRecord>()

  constructor(db: DatabaseSync) {
    this.#db = db
    for (const row of db.prepare('SELECT id, record FROM machines').iterate()) {
      const { id, record } = row as { id: string; record: string }
      this.#records.set(id, JSON.parse(record) as MachineRecord)
    }
  }

  /** @throws Fault `not_found` */
  get(id: string): MachineRecord {
    const record = this.#records.get(id)
    if (!record) throw new Fault('not_found', `machine not found: ${id} is not on this host`)
    return record
  }

  find(id: string): MachineRecord | undefined {
    return this.#records.get(id)
  }

  /** All of them, destroyed ones too, in no order. */
  all(): IterableIterator<MachineRecord> {
    return this.#records.values()
  }

  /** The smallest free machine number. @throws Fault `insufficient_capacity` when the host is full */
  freeIndex(): number {
    const taken = new Set<number>()
    for (const record of this.#records.values()) {
      if (record.destroyedAt === null) taken.add(record.index)
    }
    if (taken.size >= limits.machinesPerHostMax) {
      throw new Fault(
        'insufficient_capacity',
        `could not reserve resource for machine: this host already has ${taken.size} machines, its limit`,
      )
    }
    let index = firstIndex
    while (taken.has(index)) index++
    return index
  }

  save(record: MachineRecord): void {
    this.#db
      .prepare(
        `INSERT INTO machines (id, app_id, slot, destroyed_at, record) VALUES (?, ?, ?, ?, ?)
         ON CONFLICT (id) DO UPDATE SET destroyed_at = excluded.destroyed_at, record = excluded.record`,
      )
      .run(record.id, record.app.id, record.index, record.destroyedAt, JSON.stringify(record))
    this.#records.set(record.id, record)
  }

  /** Forgets a destroyed machine for ever. */
  purge(id: string): void {
    for (const table of ['events', 'versions', 'leases']) {
      this.#db.prepare(`DELETE FROM ${table} WHERE machine_id = ?`).run(id)
    }
    this.#db.prepare('DELETE FROM machines WHERE id = ?').run(id)
    this.#records.delete(id)
  }
}
