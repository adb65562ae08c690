import { existsSync } from 'node:fs'
import { systemClock } from '#core/clock.ts'
import { Fault, messageOf } from '#core/fault.ts'
import { createLogger } from '#sys/log.ts'
import type { Logger } from '#sys/log.ts'
import { loadConfig } from './config.ts'
import type { Home } from './home.ts'
import { keep } from './keeper.ts'
import { trimLogs } from './logs.ts'
import type { Part } from './part.ts'
import { planParts } from './plan.ts'
import { readState } from './state.ts'
import { writeStatus, type CloudStatus } from './status.ts'

export const supervisorRecord = (home: Home): string => home.record('cloud')

const housekeepingMs = 60_000

/**
 * `hangar cloud`: watches every part of the cloud until it is told to end. It owns nothing: killed in any way it leaves
 * all parts running, and its successor adopts them.
 */
export async function runSupervisor(home: Home): Promise<void> {
  const log = createLogger('cloud')
  const state = readState(home)
  if (!state) throw new Fault('not_found', `${home.dir} holds no cloud yet; start one: hangar up`)
  const config = loadConfig(home, state.overrides)
  const stop = new AbortController()
  for (const name of ['SIGTERM', 'SIGINT'] as const) process.once(name, () => stop.abort())
  void housekeep(home, stop, log)
  await superviseParts({
    home,
    parts: planParts({ home, config, state }),
    log,
    signal: stop.signal,
  })
  log.info('the supervisor ends; every part lives on')
}

/** Keeps the parts and writes down how each is. Resolves at the signal. */
export async function superviseParts(options: {
  home: Home
  parts: readonly Part[]
  log: Logger
  signal: AbortSignal
}): Promise<void> {
  const { home, parts, log, signal } = options
  const status: CloudStatus = { pid: process.pid, parts: {} }
  const ready = new Map(parts.map((part) => [part.name, Promise.withResolvers<void>()]))
  await Promise.all(
    parts.map((part) =>
      keep({
        part,
        needs: Promise.all(part.needs.map((name) => ready.get(name)?.promise ?? Promise.resolve())),
        onReport(report) {
          status.parts[part.name] = report
          if (report.state === 'ready') ready.get(part.name)?.resolve()
          writeStatus(home, status)
        },
        log,
        signal,
      }),
    ),
  )
}

/** Trims logs; ends us when the home was removed under our feet, lest we start parts without data. */
async function housekeep(home: Home, stop: AbortController, log: Logger): Promise<void> {
  while (!stop.signal.aborted) {
    if (!existsSync(home.marker)) {
      log.error(`${home.dir} was removed; the supervisor ends`)
      stop.abort()
      return
    }
    try {
      trimLogs(home)
    } catch (error) {
      log.warn({ error: messageOf(error) }, 'the logs could not be trimmed; tried again')
    }
    await systemClock.sleep(housekeepingMs, stop.signal).catch(() => {})
  }
}
