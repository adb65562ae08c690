import { closeSync, openSync, writeSync } from 'node:fs'
import { Fault } from '#core/fault.ts'
import { readJsonFile, removeFile } from '#sys/files.ts'
import { isAlive, processStartTime, type ProcessIdentity } from '#sys/process.ts'
import type { Home } from './home.ts'

/** One `up`, `down` or `destroy` at a time for a home; a holder that died holds nothing. */
export async function withLock<T>(home: Home, verb: string, act: () => Promise<T>): Promise<T> {
  const file = home.data('.lock')
  for (let attempt = 0; ; attempt++) {
    try {
      const fd = openSync(file, 'wx', 0o600)
      const self = { pid: process.pid, startTime: processStartTime(process.pid), verb }
      writeSync(fd, JSON.stringify(self))
      closeSync(fd)
      break
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
      const holder = readJsonFile(file) as (ProcessIdentity & { verb: string }) | undefined
      if ((holder && isAlive(holder)) || attempt > 3) {
        throw new Fault(
          'conflict',
          `hangar ${holder?.verb ?? 'up or down'} is at work on ${home.dir}${holder ? ` (pid ${holder.pid})` : ''}; wait for it and try again`,
        )
      }
      removeFile(file)
    }
  }
  try {
    return await act()
  } finally {
    removeFile(file)
  }
}
