import { findDaemon } from '#sys/daemon.ts'
import { type Home } from '../home.ts'
import { readStatus } from '../status.ts'
import { supervisorRecord } from '../supervisor.ts'
import { fail, ok, warn, type Finding } from './finding.ts'

/** How the cloud of this home is. */
export function checkCloud(home: Home): Finding[] {
  const supervisor = findDaemon(supervisorRecord(home))
  if (!supervisor) return [ok('cloud', `does not run; start it with: hangar up`)]
  const parts = Object.entries(readStatus(home, supervisor.pid)?.parts ?? {})
  const sick = parts.filter(([, report]) => report.state !== 'ready')
  if (sick.length === 0) return [ok('cloud', `runs, all ${parts.length} parts are ready`)]
  return sick.map(([name, report]) =>
    (report.state === 'failing' ? fail : warn)(
      'cloud',
      `${name} is ${report.state}${report.message ? `: ${report.message.split('\n')[0]}` : ''}`,
      'what it does is missing; it is started again and again',
      `see ${home.log(name)}`,
    ),
  )
}
