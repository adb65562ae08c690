import { Kysely, Migrator, PostgresDialect, type Migration } from 'kysely'
import { Pool, types } from 'pg'
import { Fault, messageOf } from '#core/fault.ts'
import { systemClock } from '#core/clock.ts'
import type { Logger } from '#sys/log.ts'
import * as first from './migrations/0001-first.ts'
import * as releaseRuns from './migrations/0002-release-runs.ts'
import * as clientDoors from './migrations/0003-client-doors.ts'
import * as appRoles from './migrations/0004-app-roles.ts'
import * as volumeLife from './migrations/0005-volume-life.ts'
import * as logins from './migrations/0006-logins.ts'
import * as indexes from './migrations/0007-indexes.ts'
import * as housekeeping from './migrations/0008-housekeeping.ts'
import type { Database } from './schema.ts'

export type Db = Kysely<Database>

/** Every migration in order. One that has run anywhere is never edited again. */
const migrations: Record<string, Migration> = {
  '0001-first': first,
  '0002-release-runs': releaseRuns,
  '0003-client-doors': clientDoors,
  '0004-app-roles': appRoles,
  '0005-volume-life': volumeLife,
  '0006-logins': logins,
  '0007-indexes': indexes,
  '0008-housekeeping': housekeeping,
}

// A bigint that counts bytes or rows fits a JavaScript number.
types.setTypeParser(types.builtins.INT8, Number)

/**
 * A pool of connections to PostgreSQL. The URL may name a unix socket's folder:
 * `postgres://user@/database?host=/folder&port=5432`.
 */
export function openDatabase(url: string, log: Logger): Db {
  const pool = new Pool({
    connectionString: url,
    max: 16,
    connectionTimeoutMillis: 5_000,
    statement_timeout: 30_000,
    idle_in_transaction_session_timeout: 30_000,
    keepAlive: true,
  })
  // A connection that breaks while nobody uses it is replaced by the pool; without a listener it would end the process.
  pool.on('error', (error) => log.warn({ error: error.message }, 'database connection lost'))
  return new Kysely<Database>({ dialect: new PostgresDialect({ pool }) })
}

/** Brings the schema up to date. Copies of control that start together take turns by an advisory lock. */
export async function migrate(db: Db): Promise<void> {
  const migrator = new Migrator({ db, provider: { getMigrations: async () => migrations } })
  const { error, results } = await migrator.migrateToLatest()
  if (error === undefined) return
  const failed = results?.find((result) => result.status === 'Error')
  throw new Fault(
    'native_failed',
    `database migration ${failed?.migrationName ?? ''} failed: ${messageOf(error)}`,
    { cause: error },
  )
}

/** Opens and migrates, waiting up to `timeoutMs` for a server that is still starting. */
export async function connectDatabase(url: string, log: Logger, timeoutMs = 30_000): Promise<Db> {
  const db = openDatabase(url, log)
  const deadline = systemClock.now() + timeoutMs
  for (;;) {
    try {
      await db.selectNoFrom((eb) => eb.lit(1).as('one')).execute()
      break
    } catch (error) {
      if (systemClock.now() > deadline) {
        await db.destroy()
        throw new Fault(
          'native_failed',
          `the database does not answer: ${messageOf(error)}; is PostgreSQL running?`,
          { cause: error },
        )
      }
      await systemClock.sleep(200)
    }
  }
  await migrate(db)
  return db
}

/** True when a write broke the named unique index or constraint. */
export function isUniqueViolation(error: unknown, constraint?: string): boolean {
  const e = error as { code?: unknown; constraint?: unknown }
  return e?.code === '23505' && (constraint === undefined || e.constraint === constraint)
}

const lostCodes = ['ECONNREFUSED', 'ECONNRESET', 'ENOENT', 'EPIPE', '57P01', '57P02', '57P03']

/** True when the server could not be asked: it is down, starting, or was stopped in the middle. */
export function isDatabaseDown(error: unknown): boolean {
  const { code, message } = error as { code?: unknown; message?: unknown }
  if (typeof code === 'string' && lostCodes.includes(code)) return true
  return /^(Connection terminated|timeout exceeded when trying to connect)/.test(String(message))
}
