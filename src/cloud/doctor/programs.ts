import { accessSync, constants, existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { childEnvironment } from '../environment.ts'
import { initFile } from '../roles.ts'
import { fail, ok, type Finding } from './finding.ts'

// Program → what does not work without it.
const programs: readonly [string, string][] = [
  ['haproxy', 'no request reaches an app'],
  ['nats-server', 'edges do not learn of machines'],
  ['docker-registry', 'built images have no place'],
  ['dockerd', 'no image can be built from a Dockerfile'],
  ['containerd', 'no image can be built from a Dockerfile'],
  ['runc', 'no image can be built, and machines need crun'],
  ['crun', 'machines run by runc, which starts them more slowly'],
  ['tar2sqfs', 'no image can be made ready for a machine'],
  ['nft', 'machines have no network'],
  ['ip', 'machines have no network'],
  ['mkfs.ext4', 'no volume can be made'],
  ['openssl', 'no certificate can be made'],
  ['setpriv', 'PostgreSQL cannot be started'],
]

export function checkPrograms(): Finding[] {
  const folders = (childEnvironment()['PATH'] ?? '').split(':')
  const missing = programs.filter(([name]) => !folders.some((dir) => isProgram(join(dir, name))))
  const findings = missing.map(([name, cost]) =>
    fail('programs', `${name} is not installed`, cost, 'scripts/setup'),
  )
  if (findings.length > 0) return [...findings, ...checkPostgres()]
  return [ok('programs', `all ${programs.length} are installed`), ...checkPostgres()]
}

/** Without it no machine starts, in a VM or a container. */
export function checkInit(path = initFile): Finding {
  return isProgram(path)
    ? ok('PID 1', 'built')
    : fail('PID 1', `${path} is not built`, 'no machine can start', 'scripts/setup')
}

function checkPostgres(): Finding[] {
  const dir = '/usr/lib/postgresql'
  const versions = existsSync(dir)
    ? readdirSync(dir).filter((v) => isProgram(join(dir, v, 'bin/postgres')))
    : []
  return versions.length > 0
    ? [ok('PostgreSQL', versions.join(', '))]
    : [
        fail(
          'PostgreSQL',
          'not installed',
          'control cannot keep apps and releases (unless DATABASE_URL names one)',
          'scripts/setup',
        ),
      ]
}

function isProgram(path: string): boolean {
  try {
    accessSync(path, constants.X_OK)
    return true
  } catch {
    return false
  }
}

export function checkNode(version: string = process.versions.node): Finding {
  return version.startsWith('26.')
    ? ok('Node', version)
    : fail(
        'Node',
        version,
        'Hangar is made for Node 26',
        'scripts/setup, then use ./hangar, which runs the pinned one',
      )
}

export function checkRoot(uid: number | undefined = process.getuid?.()): Finding {
  return uid === 0
    ? ok('user', 'root')
    : fail(
        'user',
        `uid ${uid}`,
        'up, down and machines need root (namespaces, mounts); everything else does not',
        'sudo ./hangar …',
      )
}
