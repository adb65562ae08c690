import type { DatabaseSync } from 'node:sqlite'
import { limits } from '#core/limits.ts'
import type { MachineConfig } from '#spec/machine-config.ts'
import type { MachineEvent, MachineVersion } from '#spec/machine.ts'

/** Events and versions of machines: bounded, newest first. */
export class HistoryTable {
  readonly #db: DatabaseSync
  // The newest events of machines that were asked for, so that a list of thousands reads no rows.
  readonly #events = new Map<string, MachineEvent[]>()

  constructor(db: DatabaseSync) {
    this.#db = db
  }

  addEvent(machine: string, event: MachineEvent): void {
    const known = this.events(machine)
    this.#db
      .prepare('INSERT INTO events (machine_id, event) VALUES (?, ?)')
      .run(machine, JSON.stringify(event))
    if (known.length >= limits.eventsPerMachineMax) {
      this.#db
        .prepare(
          `DELETE FROM events WHERE machine_id = ? AND seq <= (SELECT seq FROM events
           WHERE machine_id = ? ORDER BY seq DESC LIMIT 1 OFFSET ?)`,
        )
        .run(machine, machine, limits.eventsPerMachineMax)
    }
    this.#events.set(machine, [event, ...known].slice(0, limits.eventsPerMachineMax))
  }

  events(machine: string): readonly MachineEvent[] {
    const known = this.#events.get(machine)
    if (known) return known
    const rows = this.#db
      .prepare('SELECT event FROM events WHERE machine_id = ? ORDER BY seq DESC LIMIT ?')
      .all(machine, limits.eventsPerMachineMax) as { event: string }[]
    const events = rows.map((row) => JSON.parse(row.event) as MachineEvent)
    this.#events.set(machine, events)
    return events
  }

  addVersion(machine: string, version: string, config: MachineConfig, now: number): void {
    this.#db
      .prepare('INSERT INTO versions (machine_id, version, created_at, config) VALUES (?, ?, ?, ?)')
      .run(machine, version, now, JSON.stringify(config))
    this.#db
      .prepare(
        `DELETE FROM versions WHERE machine_id = ? AND version NOT IN (SELECT version FROM versions
         WHERE machine_id = ? ORDER BY created_at DESC, version DESC LIMIT ?)`,
      )
      .run(machine, machine, limits.versionsPerMachineMax)
  }

  versions(machine: string): MachineVersion[] {
    const rows = this.#db
      .prepare(
        `SELECT version, created_at, config FROM versions WHERE machine_id = ?
         ORDER BY created_at DESC, version DESC`,
      )
      .all(machine) as { version: string; created_at: number; config: string }[]
    return rows.map((row) => ({
      version: row.version,
      created_at: new Date(row.created_at).toISOString(),
      user_config: JSON.parse(row.config) as MachineConfig,
    }))
  }

  forget(machine: string): void {
    this.#events.delete(machine)
  }
}
