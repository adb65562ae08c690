import { chownSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pino } from 'pino'
import { runOk } from '#sys/process.ts'
import { connectDatabase, type Db } from './database.ts'

export interface TestPostgres {
  url: string
  db: Db
  /** Stops the server without warning, and starts it again after `meanwhile`. */
  restart(meanwhile: () => Promise<void>): Promise<void>
  close(): Promise<void>
}

const bin = '/usr/lib/postgresql/15/bin'

/** A PostgreSQL of the test's own: a cluster in a temporary folder that answers on a unix socket only. Migrated. */
export async function startTestPostgres(): Promise<TestPostgres> {
  const dir = mkdtempSync(join(tmpdir(), 'hangar-pg-'))
  const as = (command: string, args: string[]) =>
    process.getuid?.() === 0
      ? runOk(
          'setpriv',
          ['--reuid=postgres', '--regid=postgres', '--clear-groups', command, ...args],
          {
            cwd: dir,
          },
        )
      : runOk(command, args, { cwd: dir })
  if (process.getuid?.() === 0) {
    chownSync(
      dir,
      Number(await runOk('id', ['-u', 'postgres'])),
      Number(await runOk('id', ['-g', 'postgres'])),
    )
  }
  const data = join(dir, 'data')
  await as(`${bin}/initdb`, [
    '-D',
    data,
    '-U',
    'hangar',
    '-A',
    'trust',
    '--no-sync',
    '-E',
    'UTF8',
    '--locale=C',
  ])
  const options = `-c listen_addresses='' -c unix_socket_directories=${dir} -c fsync=off`
  const control = (...args: string[]) => as(`${bin}/pg_ctl`, ['-D', data, '-w', '-s', ...args])
  const start = () => control('-l', join(dir, 'log'), '-o', options, 'start')
  const stop = () => control('-m', 'immediate', 'stop')
  await start()
  const url = `postgres://hangar@/postgres?host=${dir}`
  const db = await connectDatabase(url, pino({ level: 'silent' }))
  return {
    url,
    db,
    restart: async (meanwhile) => {
      await stop()
      try {
        await meanwhile()
      } finally {
        await start()
      }
    },
    close: async () => {
      await db.destroy()
      await stop()
      rmSync(dir, { recursive: true, force: true })
    },
  }
}
