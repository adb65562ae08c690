import { closeSync, openSync, writeSync } from 'node:fs'
import { type Clock, systemClock } from '#core/clock.ts'
import { Fault } from '#core/fault.ts'
import { readJsonFile, removeFile } from '#sys/files.ts'
import { isAlive, processStartTime, type ProcessIdentity } from '#sys/process.ts'

interface Holder extends ProcessIdentity {
  purpose: string
}

/**
 * Does something while nobody else holds the lock file. A holder that died holds nothing; one that lives is waited for
 * up to `waitMs`, then it is a Fault `conflict` that names it.
 */
export async function withLock<T>(
  options: { file: string; purpose: string; waitMs: number; clock?: Clock },
  act: () => Promise<T>,
): Promise<T> {
  const { file, purpose, waitMs, clock = systemClock } = options
  const deadline = clock.now() + waitMs
  while (!take(file, purpose)) {
    const holder = readJsonFile(file) as Holder | undefined
    if (holder && !isAlive(holder)) {
      removeFile(file)
    } else if (clock.now() >= deadline) {
      const who = holder ? `${holder.purpose} (pid ${holder.pid})` : 'another hangar'
      throw new Fault('conflict', `${who} holds ${file}; wait for it and try again`)
    } else {
      await clock.sleep(20)
    }
  }
  try {
    return await act()
  } finally {
    removeFile(file)
  }
}

function take(file: string, purpose: string): boolean {
  try {
    const fd = openSync(file, 'wx', 0o600)
    const holder = { pid: process.pid, startTime: processStartTime(process.pid), purpose }
    writeSync(fd, JSON.stringify(holder))
    closeSync(fd)
    return true
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false
    throw error
  }
}
