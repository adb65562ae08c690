import { type Clock, systemClock } from '#core/clock.ts'
import { messageOf } from '#core/fault.ts'
import { daemonReady, findDaemon, startDaemon, stopDaemon, type DaemonRecord } from '#sys/daemon.ts'
import { isAlive } from '#sys/process.ts'
import type { Logger } from '#sys/log.ts'
import type { Part } from './part.ts'
import { afterDeath, type Deaths } from './restart-policy.ts'
import type { PartReport } from './status.ts'

// A dead edge holds requests up: looked at often. Reading one line of /proc costs microseconds.
const watchMs = 100
/** How many times the usual time a part is given that was not ready in time before. */
const patienceMax = 8

/**
 * Keeps one part running until the signal: adopts what its record names, starts it otherwise, and starts it again
 * whenever it dies. Never kills what it finds alive. Resolves when the signal is given; the part lives on.
 */
export async function keep(options: {
  part: Part
  /** Resolves when the parts that this one needs were ready once. */
  needs: Promise<unknown>
  onReport: (report: PartReport) => void
  log: Logger
  signal: AbortSignal
  clock?: Clock
}): Promise<void> {
  const { part, signal, log, clock = systemClock } = options
  let report: PartReport = { state: 'waiting', failures: 0 }
  const say = (change: Partial<PartReport>) => options.onReport((report = { ...report, ...change }))
  const pause = (ms: number) => clock.sleep(ms, signal).catch(() => {})
  let deaths: Deaths = { count: 0 }
  let triesInVain = 0
  say({})

  while (!signal.aborted) {
    const begun = clock.now()
    let why: string
    try {
      const { record, adopted } = await bringUp({
        part,
        needs: options.needs,
        signal,
        onStart: () => say({ state: 'starting' }),
        // A machine that is slow now is slow at the next try as well.
        readyTimeoutMs: part.readyTimeoutMs * Math.min(2 ** triesInVain, patienceMax),
      })
      if (!record) return
      triesInVain = 0
      const { message: _, ...rest } = report
      report = rest as PartReport
      say({ state: 'ready', pid: record.pid, adopted, readyMs: clock.now() - begun })
      log.info({ pid: record.pid, adopted }, `${part.name} is ready`)
      while (isAlive(record) && !signal.aborted) await pause(watchMs)
      why = `${part.name} (pid ${record.pid}) ended`
    } catch (error) {
      triesInVain++
      why = messageOf(error)
    }
    if (signal.aborted) return
    const next = afterDeath(deaths, clock.now() - begun)
    deaths = next.deaths
    const message = `${why}\n${part.remedy}`
    say({ state: next.crashLoop ? 'failing' : 'down', failures: report.failures + 1, message })
    const level = next.crashLoop ? 'error' : 'warn'
    log[level]({ why, again_in_ms: next.delayMs }, `${part.name} is down`)
    // Jitter: parts that died of one cause do not come back in step.
    await pause(next.delayMs * (0.8 + Math.random() * 0.4))
  }
}

/** Adopts or starts, and waits until it is ready. No record: the signal came first. */
async function bringUp({
  part,
  needs,
  signal,
  onStart,
  readyTimeoutMs,
}: {
  part: Part
  needs: Promise<unknown>
  signal: AbortSignal
  onStart: () => void
  readyTimeoutMs: number
}): Promise<{ record?: DaemonRecord; adopted: boolean }> {
  const found = findDaemon(part.recordFile)
  if (found) {
    await daemonReady(part, found, () => part.probe(), readyTimeoutMs)
    return { record: found, adopted: true }
  }
  await Promise.race([needs, aborted(signal)])
  if (signal.aborted) return { adopted: false }
  onStart()
  await part.prepare()
  const { name, recordFile, logFile } = part
  const record = startDaemon({ name, recordFile, logFile, ...part.command() })
  try {
    await daemonReady(part, record, () => part.probe(), readyTimeoutMs)
  } catch (error) {
    // Ours and useless: the next start must find the ports and sockets free.
    if (!signal.aborted) await stopDaemon(recordFile, part.stopSignal, part.stopGraceMs)
    throw error
  }
  return { record, adopted: false }
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve()
    else signal.addEventListener('abort', () => resolve(), { once: true })
  })
}
