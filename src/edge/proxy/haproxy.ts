import { mkdirSync } from 'node:fs'
import { systemClock } from '#core/clock.ts'
import { messageOf } from '#core/fault.ts'
import { readTextFile, removeFile, writeFileAtomic } from '#sys/files.ts'
import {
  daemonReady,
  findDaemon,
  startDaemon,
  type DaemonRecord,
  type DaemonSpec,
} from '#sys/daemon.ts'
import { isAlive } from '#sys/process.ts'
import type { Logger } from '#sys/log.ts'
import type { Admin } from './admin.ts'
import { proxyConfigText, type ProxyConfig } from './config.ts'
import { brokenHttp, unknownHtml, unknownJson } from './pages.ts'

/**
 * HAProxy as a process of its own, which outlives us: adopted when it runs with the configuration we would give it,
 * replaced without closing a listening socket when that differs, and started again when it dies.
 */
export interface HaproxyOptions {
  dir: string
  config: ProxyConfig
  admin: Admin
  log: Logger
  /** The maps a fresh HAProxy starts with, so that its first request finds its slot. */
  maps: () => { owners: Map<string, string>; http: Map<string, string>; https: Map<string, string> }
  onUp: (how: 'adopted' | 'started') => void
  onDown: () => void
}

export interface Haproxy {
  close(): void
}

const watchMs = 50
const readyTimeoutMs = 15_000

/** Resolves when HAProxy runs. Rejects with a Fault that carries HAProxy's own words when it cannot start. */
export async function keepHaproxy(options: HaproxyOptions): Promise<Haproxy> {
  const { log, dir, config } = options
  mkdirSync(dir, { recursive: true, mode: 0o700 })
  const recordFile = `${dir}/haproxy.json`
  const text = proxyConfigText(config)
  const stop = new AbortController()

  const running = findDaemon(recordFile)
  const adopted = running !== undefined && readTextFile(config.paths.config) === text
  let record = adopted ? running : await start(running?.pid)
  if (adopted) await daemonReady(specOf(), record, answers, readyTimeoutMs)
  options.onUp(adopted ? 'adopted' : 'started')
  log.info({ pid: record.pid }, adopted ? 'adopted the running HAProxy' : 'started HAProxy')
  void watch()

  function specOf(replacedPid?: number): DaemonSpec {
    const { paths } = config
    const takeOver =
      replacedPid === undefined ? [] : ['-x', paths.adminSocket, '-sf', String(replacedPid)]
    return {
      name: 'haproxy',
      command: 'haproxy',
      args: ['-db', '-f', paths.config, ...takeOver],
      logFile: `${dir}/haproxy.log`,
      recordFile,
    }
  }

  async function answers(): Promise<boolean> {
    await options.admin.run(['show version'])
    return true
  }

  async function start(replacedPid?: number): Promise<DaemonRecord> {
    writeFiles(config, text, options.maps())
    if (replacedPid === undefined) removeFile(config.paths.adminSocket)
    const spec = specOf(replacedPid)
    const started = startDaemon(spec)
    // The process that is being replaced answers on the same path until the new one has it.
    const isTheNewOne = async () => {
      const [info = ''] = await options.admin.run(['show info'])
      return info.includes(`\nPid: ${started.pid}\n`)
    }
    await daemonReady(spec, started, isTheNewOne, readyTimeoutMs)
    return started
  }

  async function watch(): Promise<void> {
    while (!stop.signal.aborted) {
      await systemClock.sleep(watchMs)
      if (stop.signal.aborted || isAlive(record)) continue
      options.onDown()
      log.error({ pid: record.pid }, 'HAProxy is gone; starting it again')
      const again = await startUntilItRuns()
      if (!again) return
      record = again
      options.onUp('started')
    }
  }

  async function startUntilItRuns(): Promise<DaemonRecord | undefined> {
    let delay = watchMs
    while (!stop.signal.aborted) {
      try {
        return await start()
      } catch (error) {
        log.error({ error: messageOf(error) }, 'HAProxy cannot be started; trying again')
        await systemClock.sleep(delay)
        delay = Math.min(5_000, delay * 2)
      }
    }
    return undefined
  }

  return {
    close() {
      stop.abort()
    },
  }
}

type Maps = ReturnType<HaproxyOptions['maps']>

function writeFiles(
  { paths }: ProxyConfig,
  configText: string,
  { owners, http, https }: Maps,
): void {
  writeFileAtomic(paths.ownersMap, mapText(owners))
  writeFileAtomic(paths.httpMap, mapText(http))
  writeFileAtomic(paths.httpsMap, mapText(https))
  writeFileAtomic(paths.unknownHtml, unknownHtml)
  writeFileAtomic(paths.unknownJson, unknownJson)
  writeFileAtomic(paths.brokenHttp, brokenHttp)
  writeFileAtomic(paths.config, configText)
}

const mapText = (map: Map<string, string>): string =>
  [...map].map(([key, value]) => `${key} ${value}\n`).join('')
