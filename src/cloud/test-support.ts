import { mkdtempSync, rmSync } from 'node:fs'
import { pino } from 'pino'
import { isAlive, type ProcessIdentity } from '#sys/process.ts'
import { stopDaemon } from '#sys/daemon.ts'
import { homeAt, prepareHome, type Home } from './home.ts'
import { filesOf, type Part } from './part.ts'

export const quiet = pino({ level: 'silent' })

/** A home of its own for one test. */
export function temporaryHome(): Home {
  const home = homeAt(mkdtempSync('/tmp/hgr-cloud-'))
  prepareHome(home)
  return home
}

export const removeHome = (home: Home): void => rmSync(home.dir, { recursive: true, force: true })

/** A native that is a few lines of Node: `script` runs with the home in HOME_DIR. */
export function fakePart(home: Home, name: string, script: string, more: Partial<Part> = {}): Part {
  return {
    name,
    ...filesOf(home, name),
    needs: [],
    prepare: async () => {},
    command: () => ({
      command: process.execPath,
      args: ['-e', script],
      env: { HOME_DIR: home.dir },
      cwd: '/',
    }),
    probe: async () => true,
    readyTimeoutMs: 5_000,
    stopSignal: 'SIGTERM',
    stopGraceMs: 1_000,
    remedy: `mend ${name}`,
    ...more,
  }
}

export const stopPart = (part: Part): Promise<void> => stopDaemon(part.recordFile, 'SIGKILL')

export const lives = (process: ProcessIdentity | undefined): boolean =>
  process !== undefined && isAlive(process)
