import { findDaemon } from '#sys/daemon.ts'
import type { CloudConfig } from '#spec/settings.ts'
import { type Home } from '../home.ts'
import type { Part } from '../part.ts'
import { planParts } from '../plan.ts'
import { regionsOfPlaces } from '../shape.ts'
import { readState } from '../state.ts'
import { readStatus } from '../status.ts'
import { supervisorRecord } from '../supervisor.ts'
import { fail, ok, warn, type Finding } from './finding.ts'

/** How the cloud of this home is, part by part. */
export async function checkCloud(home: Home, config: CloudConfig): Promise<Finding[]> {
  const supervisor = findDaemon(supervisorRecord(home))
  const state = readState(home)
  if (!supervisor || !state) return [ok('cloud', `does not run; start it with: hangar up`)]
  const reports = Object.entries(readStatus(home, supervisor.pid)?.parts ?? {})
  const sick = reports.filter(([, report]) => report.state !== 'ready')
  const ready = new Set(reports.filter(([, { state }]) => state === 'ready').map(([name]) => name))
  // Their sockets and keys are root's.
  const asked = process.getuid?.() === 0 ? planParts({ home, config, state }) : []
  const mute = await muteParts(asked.filter((part) => ready.has(part.name)))
  const shape = regionsOfPlaces(state.places).map((region) => {
    const count = state.places.filter((place) => place.region === region).length
    return `${region} with ${count} ${count === 1 ? 'host' : 'hosts'}`
  })
  return [
    ...(sick.length + mute.length > 0
      ? []
      : [ok('cloud', `runs, all ${reports.length} parts are ready; ${shape.join(', ')}`)]),
    ...sick.map(([name, report]) =>
      (report.state === 'failing' ? fail : warn)(
        'cloud',
        `${name} is ${report.state}${report.message ? `: ${report.message.split('\n')[0]}` : ''}`,
        'what it does is missing; it is started again and again',
        `see ${home.log(name)}`,
      ),
    ),
    ...mute.map((part) =>
      warn(
        'cloud',
        `${part.name} runs but does not answer`,
        'what it does waits; it is not started again while it lives',
        `see ${part.logFile}; end it, and it is started anew: kill -9 ${findDaemon(part.recordFile)?.pid}`,
      ),
    ),
  ]
}

/** Those that live and do not do their work: stopped, or stuck. */
async function muteParts(parts: readonly Part[]): Promise<Part[]> {
  const answers = await Promise.all(parts.map((part) => part.probe().catch(() => false)))
  return parts.filter((_, index) => !answers[index])
}
