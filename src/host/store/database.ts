import { DatabaseSync } from 'node:sqlite'
import { Fault, messageOf } from '#core/fault.ts'
import { migrations } from './schema.ts'

/**
 * Opens a host's database: WAL with synchronous FULL, so that a write survives a power loss unless it says otherwise, and locked to
 * this process, so that two hosts can never work on one folder. The lock goes with the process, however it ends.
 * @throws Fault `conflict` when another process has it
 */
export function openDatabase(file: string): DatabaseSync {
  const db = new DatabaseSync(file)
  try {
    db.exec(
      'PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON;',
    )
    migrate(db)
  } catch (error) {
    db.close()
    if (/locked|busy/i.test(messageOf(error))) {
      throw new Fault(
        'conflict',
        `${file} is in use by another host process; stop that one first, or give this host a folder of its own`,
        { cause: error },
      )
    }
    throw error
  }
  return db
}

function migrate(db: DatabaseSync): void {
  const { user_version: version } = db.prepare('PRAGMA user_version').get() as {
    user_version: number
  }
  if (version > migrations.length) {
    throw new Fault('conflict', `the host's database is of a newer release (schema ${version})`)
  }
  // Always a write, so that the lock is taken here and not at the first machine.
  db.exec('BEGIN IMMEDIATE')
  for (const sql of migrations.slice(version)) db.exec(sql)
  db.exec(`PRAGMA user_version = ${migrations.length}`)
  db.exec('COMMIT')
}

/** `crash`: survives the end of our process; `power`: also the end of the machine, at the price of a disk flush. */
export type Durability = 'crash' | 'power'

/** Runs `act` in one transaction; nested calls join the outer one. */
export function inTransaction<T>(
  db: DatabaseSync,
  act: () => T,
  durability: Durability = 'power',
): T {
  if (db.isTransaction) return act()
  db.exec(`PRAGMA synchronous=${durability === 'power' ? 'FULL' : 'NORMAL'}; BEGIN IMMEDIATE`)
  try {
    const result = act()
    db.exec('COMMIT')
    return result
  } catch (error) {
    db.exec('ROLLBACK')
    throw error
  } finally {
    // Writes outside of a transaction are never the weaker kind.
    if (durability === 'crash') db.exec('PRAGMA synchronous=FULL')
  }
}
