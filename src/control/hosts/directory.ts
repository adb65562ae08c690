import type { Clock } from '#core/clock.ts'
import { messageOf } from '#core/fault.ts'
import { hostRowSchema, type HostRow, type MachineRow } from '#spec/roster.ts'
import type { Logger } from '#sys/log.ts'
import type { Db } from '../store/index.ts'
import { openPulse, type Pulse } from './pulse.ts'

export interface KnownHost {
  row: HostRow
  /** Milliseconds since the epoch by our clock: the last heartbeat or answer. 0 when none since our start. */
  heardAt: number
}

export interface HostDirectory {
  list(): KnownHost[]
  get(id: string): KnownHost | undefined
  /** Heard within the last 5 s. */
  reachable(id: string): boolean
  /** Who lives, and who is not waited for. */
  readonly pulse: Pulse
  /** Takes a heartbeat, or what the host said when asked. Kept in memory at once and in the table soon after. */
  note(row: HostRow): void
  /** Takes or forgets what a host announces of a machine: newer than what it answered last, when it is silent. */
  noteMachine(row: MachineRow): void
  forgetMachine(id: string): void
  machineRow(id: string): MachineRow | undefined
  machineRows(): Iterable<MachineRow>
  /** Where its API answers: what it announced last, otherwise what was written down with a placement. */
  apiOf(id: string, recorded: string): string
  /** Writes what changed since the last write. */
  flush(): Promise<void>
}

const reachableMs = 5_000

/** Starts from the table, so that hosts can be called before the bus has said a word. */
export async function openHostDirectory(options: {
  db: Db
  clock: Clock
  log: Logger
}): Promise<HostDirectory> {
  const { db, clock, log } = options
  const hosts = new Map<string, KnownHost>()
  const pulse = openPulse(clock)
  const written = new Map<string, string>()
  const changed = new Set<string>()
  const machines = new Map<string, MachineRow>()
  for (const saved of await db.selectFrom('hosts').selectAll().execute()) {
    const row = hostRowSchema.safeParse(saved.row)
    if (row.success) hosts.set(saved.id, { row: row.data, heardAt: 0 })
    else log.warn({ host: saved.id }, 'skipped a host row that cannot be read')
  }

  return {
    pulse,
    list: () => [...hosts.values()],
    get: (id) => hosts.get(id),
    reachable: (id) => clock.now() - (hosts.get(id)?.heardAt ?? 0) < reachableMs,
    apiOf: (id, recorded) => hosts.get(id)?.row.api ?? recorded,
    noteMachine: (row) => void machines.set(row.id, row),
    forgetMachine: (id) => void machines.delete(id),
    machineRow: (id) => machines.get(id),
    machineRows: () => machines.values(),
    note(row) {
      hosts.set(row.host, { row, heardAt: clock.now() })
      pulse.alive(row.host)
      // Only what outlives a heartbeat is worth a write.
      const lasting = JSON.stringify([row.number, row.region, row.api, row.capacity])
      if (written.get(row.host) === lasting) return
      written.set(row.host, lasting)
      changed.add(row.host)
    },
    async flush() {
      for (const id of changed) {
        const known = hosts.get(id)
        changed.delete(id)
        if (!known) continue
        const row = JSON.stringify(known.row)
        const at = new Date(clock.now())
        try {
          await db
            .insertInto('hosts')
            .values({ id, row, last_seen_at: at })
            .onConflict((c) => c.column('id').doUpdateSet({ row, last_seen_at: at }))
            .execute()
        } catch (error) {
          written.delete(id)
          log.warn({ host: id, error: messageOf(error) }, 'could not write down a host')
        }
      }
    },
  }
}
