import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { openCounter } from './counter.ts'
import { inTransaction, openDatabase, type Durability } from './database.ts'
import { HistoryTable } from './history-table.ts'
import { LeaseTable } from './lease-table.ts'
import { MachineTable } from './machine-table.ts'
import { openSecretBox } from './secret-box.ts'
import { SecretTable } from './secret-table.ts'
import { SnapshotTable } from './snapshot-table.ts'
import { VolumeTable } from './volume-table.ts'

export type { Durability } from './database.ts'
export type { LeaseRecord } from './lease-table.ts'
export type { MachineRecord } from './record.ts'
export type { SnapshotRecord } from './snapshot-table.ts'
export type { VolumeRecord } from './volume-table.ts'

/** What a host must not forget. The only importer of the SQLite driver. */
export interface Store {
  machines: MachineTable
  history: HistoryTable
  leases: LeaseTable
  secrets: SecretTable
  volumes: VolumeTable
  snapshots: SnapshotTable
  /** The host's own ever-growing number: the version of its roster rows. */
  nextCounter(): number
  /** All writes of `act` are on disk together, or none is. */
  transaction<T>(act: () => T, durability?: Durability): T
  close(): void
}

/** @throws Fault `conflict` when another host process has the folder */
export function openStore(dir: string): Store {
  mkdirSync(dir, { recursive: true, mode: 0o750 })
  const db = openDatabase(join(dir, 'host.sqlite'))
  return {
    machines: new MachineTable(db),
    history: new HistoryTable(db),
    leases: new LeaseTable(db),
    secrets: new SecretTable(db, openSecretBox(join(dir, 'secrets.key'))),
    volumes: new VolumeTable(db),
    snapshots: new SnapshotTable(db),
    nextCounter: openCounter(db, 'roster'),
    transaction: (act, durability) => inTransaction(db, act, durability),
    close: () => db.close(),
  }
}
