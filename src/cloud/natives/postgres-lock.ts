import { existsSync, readdirSync, readlinkSync, realpathSync } from 'node:fs'
import { systemClock } from '#core/clock.ts'
import { Fault } from '#core/fault.ts'
import { readTextFile, removeFile } from '#sys/files.ts'
import { processStartTime } from '#sys/process.ts'

/** A killed server's children end by themselves as soon as they notice. */
const childrenEndMs = 15_000

/**
 * PostgreSQL takes a zombie for a living server and refuses to start beside it. Where nobody reaps the dead (a supervisor
 * killed with -9 inside a container without an init), that would be for ever: so the locks of a dead server, that of its
 * data and that of its socket, are removed once no process works in the data folder any more.
 */
export async function removeDeadLock(data: string, sockets: string): Promise<void> {
  const lock = `${data}/postmaster.pid`
  const pid = Number(readTextFile(lock)?.split('\n')[0])
  const isZombie = pid > 0 && existsSync(`/proc/${pid}`) && processStartTime(pid) === undefined
  if (!isZombie) return
  const deadline = systemClock.now() + childrenEndMs
  while (worksIn(data)) {
    if (systemClock.now() > deadline) {
      throw new Fault(
        'native_failed',
        `processes of a dead PostgreSQL still work in ${data}; see them with: fuser -v ${data}`,
      )
    }
    await systemClock.sleep(50)
  }
  removeFile(`${sockets}/.s.PGSQL.5432.lock`)
  removeFile(lock)
}

/** Every process of a server has the data folder as its working directory. */
function worksIn(data: string): boolean {
  const folder = realpathSync(data)
  return readdirSync('/proc').some((pid) => {
    try {
      return /^\d+$/.test(pid) && readlinkSync(`/proc/${pid}/cwd`) === folder
    } catch {
      return false // It ended while we looked.
    }
  })
}
