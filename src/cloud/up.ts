import { chownSync, existsSync } from 'node:fs'
import { type Clock, systemClock } from '#core/clock.ts'
import { Fault } from '#core/fault.ts'
import { daemonReady, findDaemon, startDaemon, type DaemonRecord } from '#sys/daemon.ts'
import { isAlive } from '#sys/process.ts'
import { tailOfFile } from '#sys/files.ts'
import { ensureSecrets } from './authority.ts'
import { chooseState } from './choose.ts'
import { loadConfig } from './config.ts'
import { freeCrun } from './crun-hindrance.ts'
import { childEnvironment } from './environment.ts'
import { prepareHome, type Home } from './home.ts'
import { withLock } from './lock.ts'
import { chooseBesideNeighbours } from './neighbours.ts'
import { planParts } from './plan.ts'
import type { Progress } from './progress.ts'
import { programFile } from './roles.ts'
import { readState, writeState, type Overrides } from './state.ts'
import { readStatus } from './status.ts'
import { supervisorRecord } from './supervisor.ts'

const upTimeoutMs = 180_000
/** A part that failed so often is not just waiting for another one. */
const failuresMax = 3

export interface UpResult {
  alreadyRunning: boolean
}

/**
 * Starts the cloud of this home in the background, adopting whatever of it runs, and waits until every part is ready.
 * Fault `native_failed` with the part's own last words when one does not come up; the supervisor keeps trying.
 */
export async function up(options: {
  home: Home
  overrides: Overrides
  progress: Progress
  clock?: Clock
}): Promise<UpResult> {
  const { home, overrides, progress, clock = systemClock } = options
  requireRoot('hangar up')
  prepareHome(home)
  return await withLock(homeLock(home, 'hangar up'), async () => {
    const kept = readState(home)
    const merged = { ...kept?.overrides, ...overrides }
    const running = findDaemon(supervisorRecord(home))
    if (running) {
      if (kept && JSON.stringify(merged) !== JSON.stringify(kept.overrides)) {
        writeState(home, { ...kept, overrides: merged })
        progress.warn('the new settings count from the next start: hangar down, then hangar up')
      }
      await follow({ home, supervisor: running, progress, clock, found: true })
      return { alreadyRunning: true }
    }
    const begun = clock.now()
    const config = loadConfig(home, merged)
    const adopts = kept !== undefined && anyAlive(home, kept, merged)
    await chooseBesideNeighbours(home, async (neighbours) => {
      const mayMovePorts = !adopts
      const choice = { config, overrides: merged, kept, neighbours, mayMovePorts }
      const { state, moved } = await chooseState(choice)
      writeState(home, state)
      moved.forEach((line) => progress.note(`  ${line}`))
      return state
    })
    await ensureSecrets(home, config.domain)
    progress.done('settings and keys', clock.now() - begun, home.dir)
    await freeCrun(progress)
    const supervisor = await startSupervisor(home)
    await follow({ home, supervisor, progress, clock, found: false })
    shareToken(home)
    return { alreadyRunning: false }
  })
}

/** One `up`, `down` or `destroy` at a time for a home. */
export const homeLock = (home: Home, purpose: string) => ({
  file: home.data('.lock'),
  purpose,
  waitMs: 0,
})

export function requireRoot(what: string): void {
  if (process.getuid?.() !== 0) {
    throw new Fault('forbidden', `${what} needs root (namespaces, mounts): sudo ./${what}`)
  }
}

function anyAlive(home: Home, kept: NonNullable<ReturnType<typeof readState>>, over: Overrides) {
  const parts = planParts({ home, config: loadConfig(home, over), state: kept })
  return parts.some((part) => findDaemon(part.recordFile) !== undefined)
}

async function startSupervisor(home: Home): Promise<DaemonRecord> {
  const files = {
    name: 'the supervisor',
    recordFile: supervisorRecord(home),
    logFile: home.log('cloud'),
  }
  const record = startDaemon({
    ...files,
    command: process.execPath,
    args: [programFile, 'cloud', '--home', home.dir],
    env: childEnvironment(),
    cwd: '/',
  })
  await daemonReady(files, record, async () => readStatus(home, record.pid) !== undefined, 20_000)
  return record
}

/** Prints each part once it is ready; returns when all are. */
async function follow(options: {
  home: Home
  supervisor: DaemonRecord
  progress: Progress
  clock: Clock
  /** It ran before we came: nothing new is told of it. */
  found: boolean
}): Promise<void> {
  const { home, supervisor, progress, clock, found } = options
  const deadline = clock.now() + upTimeoutMs
  const told = new Set<string>()
  // A supervisor that was found running may have started a part again often: that was before our time.
  const before = new Map<string, number>()
  for (;;) {
    const parts = Object.entries(readStatus(home, supervisor.pid)?.parts ?? {})
    for (const [name, report] of parts) {
      if (report.state === 'ready' && !told.has(name)) {
        told.add(name)
        const note = report.adopted ? `adopted, pid ${report.pid}` : `pid ${report.pid}`
        if (!found) progress.done(name, report.readyMs ?? 0, note)
      }
      if (!before.has(name)) before.set(name, found ? report.failures : 0)
      const failures = report.failures - (before.get(name) ?? 0)
      if (report.state === 'failing' || (report.state !== 'ready' && failures >= failuresMax)) {
        throw new Fault(
          'native_failed',
          `${name} does not come up: ${report.message}\nIt is tried again in the background; to end that: hangar down`,
        )
      }
    }
    if (parts.length > 0 && parts.every(([, report]) => report.state === 'ready')) return
    if (!isAlive(supervisor)) {
      throw new Fault(
        'native_failed',
        `the supervisor ended; the end of ${home.log('cloud')}:\n${tailOfFile(home.log('cloud'), 2000)}`,
      )
    }
    if (clock.now() > deadline) {
      const late = parts.filter(([, report]) => report.state !== 'ready').map(([name]) => name)
      throw new Fault(
        'timeout',
        `${late.join(', ')} not ready after ${upTimeoutMs / 1000} s; see the logs in ${home.data('log')}`,
      )
    }
    await clock.sleep(30)
  }
}

/** Who ran us by sudo uses the CLI as themselves afterwards. */
function shareToken(home: Home): void {
  const uid = Number(process.env['SUDO_UID'])
  const gid = Number(process.env['SUDO_GID'])
  if (uid > 0 && gid > 0 && existsSync(home.token)) chownSync(home.token, uid, gid)
}
