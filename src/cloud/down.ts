import { existsSync, readdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { type Clock, systemClock } from '#core/clock.ts'
import { Fault, messageOf } from '#core/fault.ts'
import { daemonReady, findDaemon, startDaemon, stopDaemon } from '#sys/daemon.ts'
import { callJson } from '#sys/http-client.ts'
import { withFileLock } from '#sys/file-lock.ts'
import { clusterKeyOf } from './authority.ts'
import { removeClientNetwork } from './client-network.ts'
import { loadConfig } from './config.ts'
import type { Home } from './home.ts'
import { mountsBelow, unmountBelow } from './mounts.ts'
import type { Part } from './part.ts'
import { nativeParts } from './plan.ts'
import type { Progress } from './progress.ts'
import { hostPart, hostPartName, hostSocket, type World } from './roles.ts'
import { strayMachines } from './strays.ts'
import { readState, type Place } from './state.ts'
import { supervisorRecord } from './supervisor.ts'
import { homeLock, requireRoot } from './up.ts'

// A machine may take up to five minutes to stop (its kill_timeout).
const machinesStopTimeoutMs = 330_000
const dieTimeoutMs = 5_000

/**
 * Stops the cloud of this home and keeps its data: the supervisor first, so that nothing is started again; machines
 * while the edges still carry their last requests; then edges, hosts, control and the natives. Works with whatever of
 * it still runs. Resolves with false when nothing ran.
 */
export async function down(options: {
  home: Home
  progress: Progress
  clock?: Clock
}): Promise<boolean> {
  const { home } = options
  requireRoot('hangar down')
  if (!existsSync(home.marker)) return false
  return await withFileLock(homeLock(home, 'hangar down'), () =>
    stopAll({ clock: systemClock, ...options }),
  )
}

async function stopAll(options: {
  home: Home
  progress: Progress
  clock: Clock
}): Promise<boolean> {
  const { home, progress, clock } = options
  const timed = async (what: string, act: () => Promise<boolean>) => {
    const begun = clock.now()
    const did = await act()
    if (did) progress.done(what, clock.now() - begun)
    return did
  }
  let any = await timed('supervisor stopped', () => stopRecord(supervisorRecord(home)))
  const state = readState(home)
  if (!state) return any
  const world: World = { home, state, config: loadConfig(home, state.overrides) }
  any = (await timed('machines stopped', () => stopMachines(world, progress))) || any
  any = (await timed('edges stopped', () => stopEdges(home))) || any
  any = (await timed('hosts stopped', () => stopMatching(home, /^host-/))) || any
  any = (await timed('client network removed', () => removeClientNetwork(state.cloud_id))) || any
  any = (await timed('control stopped', () => stopRecord(home.record('control')))) || any
  for (const part of nativeParts(world).toReversed()) {
    any = (await timed(`${part.name} stopped`, () => stopPart(part))) || any
  }
  // A part that an earlier configuration knew.
  any = (await timed('other parts stopped', () => stopMatching(home, /./))) || any
  await unmountBelow(home.data('docker'))
  await unmountBelow(home.run)
  rmSync(home.status, { force: true })
  const left = mountsBelow(home.dir)
  if (left.length > 0) progress.warn(`still mounted: ${left.slice(0, 5).join(', ')}`)
  return any
}

async function stopRecord(
  recordFile: string,
  signal: NodeJS.Signals = 'SIGTERM',
  graceMs = 15_000,
): Promise<boolean> {
  const ran = findDaemon(recordFile) !== undefined
  await stopDaemon(recordFile, signal, graceMs)
  return ran
}

const stopPart = (part: Part) => stopRecord(part.recordFile, part.stopSignal, part.stopGraceMs)

async function stopMatching(home: Home, names: RegExp): Promise<boolean> {
  const records = readdirSync(home.run).filter((file) => file.endsWith('.json'))
  const wanted = records.filter((file) => file !== 'status.json' && names.test(file))
  const ran = await Promise.all(wanted.map((file) => stopRecord(join(home.run, file))))
  return ran.includes(true)
}

/** The edges, then the HAProxy that each leaves running. */
async function stopEdges(home: Home): Promise<boolean> {
  const edges = await stopMatching(home, /^edge-/)
  const dir = home.data('edges')
  const ran = await Promise.all(
    readdirSync(dir).map((id) => stopRecord(join(dir, id, 'haproxy.json'), 'SIGTERM', 5_000)),
  )
  return edges || ran.includes(true)
}

async function stopMachines(world: World, progress: Progress): Promise<boolean> {
  const stopped = await Promise.all(
    world.state.places.map(async (place) => {
      try {
        return await stopMachinesOf(world, place)
      } catch (error) {
        progress.warn(`the machines of ${place.id} could not be stopped: ${messageOf(error)}`)
        return true
      }
    }),
  )
  return stopped.includes(true)
}

/** The host stops its machines. One that died while machines run is started for that alone. */
async function stopMachinesOf(world: World, place: Place): Promise<boolean> {
  const { home } = world
  const running = findDaemon(home.record(hostPartName(place))) !== undefined
  const strays = strayMachines(place)
  if (!running && strays.length === 0) return false
  if (!running) await startForStop(world, place)
  await callJson(`unix:${hostSocket(home, place)}`, {
    method: 'POST',
    path: '/v1/down',
    headers: { authorization: `Bearer ${clusterKeyOf(home)}` },
    body: {},
    timeoutMs: machinesStopTimeoutMs,
  })
  // What was killed may take a moment to die.
  const until = systemClock.now() + dieTimeoutMs
  for (;;) {
    const left = strayMachines(place)
    if (left.length === 0) return true
    if (systemClock.now() > until) {
      throw new Fault('native_failed', `processes still run for it: ${left.join(', ')}`)
    }
    await systemClock.sleep(50)
  }
}

async function startForStop(world: World, place: Place): Promise<void> {
  const part = hostPart(world, place)
  await part.prepare()
  const { name, recordFile, logFile } = part
  const record = startDaemon({ name, recordFile, logFile, ...part.command() })
  await daemonReady(part, record, () => part.probe(), part.readyTimeoutMs)
}
