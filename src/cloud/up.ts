import { chownSync, existsSync } from 'node:fs'
import { type Clock, systemClock } from '#core/clock.ts'
import { Fault } from '#core/fault.ts'
import { daemonReady, findDaemon, startDaemon, stopDaemon, type DaemonRecord } from '#sys/daemon.ts'
import type { CloudConfig } from '#spec/settings.ts'
import { isAlive } from '#sys/process.ts'
import { tailOfFile } from '#sys/files.ts'
import { withFileLock } from '#sys/file-lock.ts'
import { ensureSecrets } from './authority.ts'
import { chooseState } from './choose.ts'
import { loadConfig } from './config.ts'
import { freeCrun } from './crun-hindrance.ts'
import { checkInit } from './doctor/programs.ts'
import { hasQemu, qemuProgram } from './doctor/runtime.ts'
import { childEnvironment } from './environment.ts'
import { prepareHome, type Home } from './home.ts'
import { chooseBesideNeighbours } from './neighbours.ts'
import { planParts } from './plan.ts'
import type { Progress } from './progress.ts'
import { programFile } from './roles.ts'
import { grows, requireAllPlaces } from './shape.ts'
import { readState, writeState, type CloudState, type Overrides } from './state.ts'
import { readStatus } from './status.ts'
import { supervisorRecord } from './supervisor.ts'

const upTimeoutMs = 180_000
/** One that dies is seen at once: this is for machines that are slow, or busy. */
const supervisorTimeoutMs = 60_000
/** A part that failed so often is not just waiting for another one. */
const failuresMax = 3

export interface UpResult {
  alreadyRunning: boolean
}

/**
 * Starts the cloud of this home in the background, adopting whatever of it runs, and waits until every part is ready. With
 * more regions or hosts than before it adds them, also to a cloud that runs. Fault `invalid` with fewer; `native_failed`
 * with the part's own last words when one does not come up: the supervisor keeps trying.
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
  return await withFileLock(homeLock(home, 'hangar up'), async () => {
    const kept = readState(home)
    const merged = { ...kept?.overrides, ...overrides }
    const config = loadConfig(home, merged)
    if (kept) requireAllPlaces(kept, config)
    requireRuntime(config)
    const running = findDaemon(supervisorRecord(home))
    if (running) {
      if (kept && JSON.stringify(merged) !== JSON.stringify(kept.overrides)) {
        writeState(home, { ...kept, overrides: merged })
        if (!sameButShape(merged, kept.overrides)) {
          progress.warn('the new settings count from the next start: hangar down, then hangar up')
        }
      }
      if (!kept || !grows(kept, config)) {
        await follow({ home, supervisor: running, progress, clock, found: true })
        return { alreadyRunning: true }
      }
      // What it keeps lives on and is adopted by its successor, which knows the new hosts too.
      await stopDaemon(supervisorRecord(home))
    }
    const begun = clock.now()
    await settle({ home, kept, config, merged, progress })
    progress.done('settings and keys', clock.now() - begun, home.dir)
    await freeCrun(progress)
    const supervisor = await startSupervisor(home)
    await follow({ home, supervisor, progress, clock, found: false })
    shareToken(home)
    return { alreadyRunning: false }
  })
}

/** Chooses and writes down what the cloud is made of, with its keys. */
async function settle(options: {
  home: Home
  kept: CloudState | undefined
  config: CloudConfig
  merged: Overrides
  progress: Progress
}): Promise<void> {
  const { home, kept, config, merged, progress } = options
  const adopts = kept !== undefined && anyAlive(home, kept, config)
  // Control is told the regions when it starts, and nobody who runs something notices that it does.
  if (adopts && grows(kept, config)) await stopDaemon(home.record('control'))
  await chooseBesideNeighbours(home, async (neighbours) => {
    const choice = {
      config: adopts ? { ...config, ports: kept.ports_wanted } : config,
      overrides: merged,
      kept,
      neighbours,
      mayMovePorts: !adopts,
    }
    const { state, moved } = await chooseState(choice)
    writeState(home, state)
    moved.forEach((line) => progress.note(`  ${line}`))
    return state
  })
  await ensureSecrets(home, config.domain)
}

function sameButShape(a: Overrides, b: Overrides): boolean {
  const rest = (all: Overrides) =>
    JSON.stringify({ ...all, regions: undefined, hosts_per_region: undefined })
  return rest(a) === rest(b)
}

/** One `up`, `down` or `destroy` at a time for a home. */
export const homeLock = (home: Home, purpose: string) => ({
  file: home.data('.lock'),
  purpose,
  waitMs: 0,
})

function requireRuntime(config: CloudConfig): void {
  const { state, found, cost, remedy } = checkInit()
  if (state === 'fail') {
    throw new Fault('native_failed', `PID 1 of machines: ${found}, and ${cost}; run ${remedy}`)
  }
  if (config.runtime !== 'qemu' || hasQemu()) return
  throw new Fault(
    'native_failed',
    `${qemuProgram} is not installed, and machines are to run in it (runtime qemu); install it with scripts/setup, or use --runtime container`,
  )
}

export function requireRoot(what: string): void {
  if (process.getuid?.() !== 0) {
    throw new Fault('forbidden', `${what} needs root (namespaces, mounts): sudo ./${what}`)
  }
}

function anyAlive(home: Home, kept: CloudState, config: CloudConfig): boolean {
  const parts = planParts({ home, config, state: kept })
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
  await daemonReady(
    files,
    record,
    async () => readStatus(home, record.pid) !== undefined,
    supervisorTimeoutMs,
  )
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
