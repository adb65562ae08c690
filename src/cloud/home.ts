import { chmodSync, existsSync, mkdirSync, readdirSync, statSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { Fault } from '#core/fault.ts'
import { writeFileAtomic } from '#sys/files.ts'

/** The folder of one cloud: everything it keeps, and the records of everything that runs for it. */
export interface Home {
  readonly dir: string
  /** Present in every home of ours; without it nothing is ever deleted. */
  readonly marker: string
  readonly config: string
  readonly state: string
  readonly token: string
  readonly clusterKey: string
  readonly ca: { dir: string; cert: string; key: string }
  readonly registryToken: { cert: string; key: string }
  readonly run: string
  readonly postgresSockets: string
  readonly dockerSocket: string
  readonly status: string
  /** pid + start time of a daemon. */
  record(name: string): string
  log(name: string): string
  settings(name: string): string
  socket(name: string): string
  data(name: string): string
}

export const defaultHome = '/var/lib/hangar'
// Unix socket paths end at 107 bytes, and the deepest of ours (a machine's) takes about 60 below the home.
const homeLengthMax = 48

export function homeAt(path: string): Home {
  const dir = resolve(path)
  if (dir.length > homeLengthMax) {
    throw new Fault(
      'invalid',
      `${dir} is too long for a home (${dir.length} characters, at most ${homeLengthMax}): the paths of sockets below it would not fit; choose a shorter one with --home`,
    )
  }
  const at = (...parts: string[]) => join(dir, ...parts)
  return {
    dir,
    marker: at('.hangar-home'),
    config: at('hangar.toml'),
    state: at('state.json'),
    token: at('token'),
    clusterKey: at('cluster.key'),
    ca: { dir: at('ca'), cert: at('ca/ca.pem'), key: at('ca/ca.key') },
    registryToken: { cert: at('ca/registry-token.pem'), key: at('ca/registry-token.key') },
    run: at('run'),
    postgresSockets: at('run/postgres'),
    dockerSocket: at('run/docker.sock'),
    status: at('run/status.json'),
    record: (name) => at('run', `${name}.json`),
    log: (name) => at('log', `${name}.log`),
    settings: (name) => at('run/settings', name),
    socket: (name) => at('run', `${name}.sock`),
    data: (name) => at(name),
  }
}

// What an operator or a file system may have put there before us.
const mayExistBefore = new Set(['hangar.toml', 'login.json', 'lost+found'])

/** Makes the folders of a new home; refuses a folder that holds somebody else's files. */
export function prepareHome(home: Home): void {
  if (existsSync(home.dir) && !existsSync(home.marker)) {
    const foreign = readdirSync(home.dir).filter((name) => !mayExistBefore.has(name))
    if (foreign.length > 0) {
      throw new Fault(
        'conflict',
        `${home.dir} is not a Hangar home and is not empty (${foreign.slice(0, 3).join(', ')}); choose another folder with --home or HANGAR_HOME`,
      )
    }
  }
  mkdirSync(home.dir, { recursive: true })
  if (!existsSync(home.marker)) {
    writeFileAtomic(home.marker, 'The data of a Hangar cloud. Remove it with: hangar destroy\n')
  }
  // PostgreSQL runs as its own user and passes through here; secrets below have modes of their own.
  chmodSync(home.dir, 0o711)
  for (const name of ['run', 'log', 'ca', 'hosts', 'edges', 'control', 'registry', 'nats']) {
    mkdirSync(home.data(name), { recursive: true, mode: 0o700 })
  }
  chmodSync(home.run, 0o711)
  // The certificate is for everybody who wants to trust it; the keys beside it are 0600.
  chmodSync(home.ca.dir, 0o755)
  mkdirSync(join(home.run, 'settings'), { recursive: true, mode: 0o700 })
  mkdirSync(home.data('docker'), { recursive: true, mode: 0o711 })
}

/** The first folder above the home that other users may not pass, or undefined. */
export function closedFolderAbove(home: Home): string | undefined {
  for (let dir = dirname(home.dir); ; dir = dirname(dir)) {
    if ((statSync(dir).mode & 0o001) === 0) return dir
    if (dir === dirname(dir)) return undefined
  }
}
