import { chownSync, existsSync, mkdirSync, readdirSync, renameSync, rmSync } from 'node:fs'
import { Fault } from '#core/fault.ts'
import { readTextFile } from '#sys/files.ts'
import { run, runOk } from '#sys/process.ts'
import { childEnvironment } from '../environment.ts'
import { closedFolderAbove, type Home } from '../home.ts'
import { filesOf, type Part } from '../part.ts'
import { removeDeadLock } from './postgres-lock.ts'

const programs = '/usr/lib/postgresql'
const role = 'hangar'
const database = 'hangar'
/** Making a cluster ends by itself, also when it fails, and starts from nothing again when it is cut short. */
const makeTimeoutMs = 300_000

/**
 * The cluster of PostgreSQL that control keeps its state in: our own, on a unix socket in a folder that only its user
 * and root may enter, with fsync as it should be.
 */
export function postgresPart(home: Home): Part {
  const data = home.data('postgres')
  return {
    name: 'postgres',
    ...filesOf(home, 'postgres'),
    needs: [],
    readyTimeoutMs: 60_000,
    // "Fast": ends sessions, writes everything.
    stopSignal: 'SIGINT',
    stopGraceMs: 30_000,
    remedy: 'install it with: scripts/setup',
    prepare: () => prepare(home, data),
    command: () => ({
      command: `${programsOf(data)}/postgres`,
      args: ['-D', data, '-k', home.postgresSockets, ...settings],
      env: childEnvironment(),
      cwd: '/',
      ...postgresUser(),
    }),
    async probe() {
      if (!existsSync(`${home.postgresSockets}/.s.PGSQL.5432`)) return false
      const where = ['-q', '-h', home.postgresSockets, '-d', database, '-U', role]
      return (await run(`${programsOf(data)}/pg_isready`, where)).code === 0
    },
  }
}

export function postgresUrl(home: Home): string {
  return `postgres://${role}@localhost/${database}?host=${encodeURIComponent(home.postgresSockets)}`
}

// Small: one cloud's control needs tens of connections and megabytes.
const settings = Object.entries({
  listen_addresses: '',
  unix_socket_permissions: '0700',
  max_connections: '60',
  shared_buffers: '32MB',
  fsync: 'on',
  logging_collector: 'off',
}).flatMap(([name, value]) => ['-c', `${name}=${value}`])

async function prepare(home: Home, data: string): Promise<void> {
  const { uid, gid } = postgresUser()
  const closed = closedFolderAbove(home)
  if (closed) {
    throw new Fault(
      'forbidden',
      `the user postgres cannot pass through ${closed} to ${data}; allow it with: chmod o+x ${closed}; or choose another home`,
    )
  }
  mkdirSync(home.postgresSockets, { recursive: true, mode: 0o700 })
  chownSync(home.postgresSockets, uid, gid)
  if (existsSync(`${data}/PG_VERSION`)) return await removeDeadLock(data, home.postgresSockets)
  // Under another name until it is whole: a kill in between leaves nothing that looks like a cluster.
  const growing = `${data}.new`
  rmSync(growing, { recursive: true, force: true })
  mkdirSync(growing, { mode: 0o700 })
  chownSync(growing, uid, gid)
  const as = ['--reuid', String(uid), '--regid', String(gid), '--clear-groups', '--']
  const env = childEnvironment()
  const initdb = `${programsOf(data)}/initdb`
  const choices = ['-U', role, '-E', 'UTF8', '--locale=C.UTF-8', '--no-instructions']
  const trust = ['--auth-local=trust', '--auth-host=reject']
  const options = { env, cwd: '/', timeoutMs: makeTimeoutMs }
  await runOk('setpriv', [...as, initdb, '-D', growing, ...choices, ...trust], options)
  const single = [`${programsOf(data)}/postgres`, '--single', '-D', growing, 'postgres']
  await runOk('setpriv', [...as, ...single], { ...options, input: `CREATE DATABASE ${database}\n` })
  renameSync(growing, data)
}

/** The folder of the programs that fit the data: its own major version, or the newest there is for a new cluster. */
function programsOf(data: string): string {
  const written = readTextFile(`${data}/PG_VERSION`)?.trim()
  const versions = existsSync(programs) ? readdirSync(programs) : []
  const fits = versions
    .filter((v) => existsSync(`${programs}/${v}/bin/postgres`) && (!written || v === written))
    .toSorted((a, b) => Number(a) - Number(b))
  const version = fits.at(-1)
  if (version) return `${programs}/${version}/bin`
  throw new Fault(
    'native_failed',
    `PostgreSQL ${written ?? '15'} is not installed below ${programs}; install it with: scripts/setup`,
  )
}

/** PostgreSQL refuses to run as root. */
function postgresUser(): { uid: number; gid: number } {
  const line = readTextFile('/etc/passwd')
    ?.split('\n')
    .find((l) => l.startsWith('postgres:'))
  const [, , uid, gid] = line?.split(':') ?? []
  if (uid && gid) return { uid: Number(uid), gid: Number(gid) }
  throw new Fault(
    'native_failed',
    'there is no user postgres on this machine; install PostgreSQL with: scripts/setup',
  )
}
