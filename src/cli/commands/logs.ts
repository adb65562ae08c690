import { Fault, isFault } from '#core/fault.ts'
import { systemClock } from '#core/clock.ts'
import type { LogLine } from '#spec/host-api.ts'
import { part, type Api } from '../api.ts'
import { withJitter } from '../jitter.ts'
import { getApp } from '../apps.ts'
import type { Call, Command } from '../command.ts'
import { aboutApp, jsonFlag, regionFlag } from '../flags.ts'
import { colorsOf, complain, say, type Colors } from '../io.ts'
import { findMachine } from '../machines.ts'

/** Lines of the past that come first, as flyctl shows them. */
const pastLines = 100
const retryMs = { first: 250, most: 10_000 }

/** flyctl's line: `2026-11-23T05:40:00Z app[<machine>] <region> [info]message`. */
export function formatLogLine(line: LogLine, colors: Colors): string {
  const at = new Date(line.timestamp).toISOString().replace(/\.\d+Z$/, 'Z')
  const paint = { info: colors.blue, warn: colors.yellow, error: colors.red }[line.level]
  const from = line.instance ? `${line.provider}[${line.instance}]` : line.provider
  return `${colors.dim(at)} ${from} ${colors.green(line.region)} [${(paint ?? colors.red)(line.level)}]${line.message}`
}

/** Lines of several machines are not in one order: after a reconnect this much is read again. */
const overlapNs = 5_000_000_000n

/** Remembers the newest line of each machine, so that a line read again after a reconnect is shown once. */
export function rememberLines() {
  const newest = new Map<string, bigint>()
  let latest: bigint | undefined
  return {
    isNew({ instance, ns }: Pick<LogLine, 'instance' | 'ns'>): boolean {
      const at = BigInt(ns)
      const last = newest.get(instance)
      if (last !== undefined && at <= last) return false
      newest.set(instance, at)
      if (latest === undefined || at > latest) latest = at
      return true
    },
    /** From where to read again; undefined when nothing was read. */
    since: (): string | undefined =>
      latest === undefined ? undefined : String(latest > overlapNs ? latest - overlapNs : 0n),
  }
}

async function runLogs(call: Call): Promise<number> {
  const { io, flags } = call
  const api = call.api()
  const app = await call.appName()
  await getApp(api, app)
  const machine = flags.text('machine') ?? flags.text('instance')
  const instance = machine && (await findMachine(api, app, machine)).id
  const filter = { instance, region: flags.text('region') }
  const colors = colorsOf(io)
  const show = (line: LogLine) =>
    say(io, flags.on('json') ? JSON.stringify(line) : formatLogLine(line, colors))
  const follow = flags.on('follow', true) && !flags.on('no-tail')
  if (follow) return followLogs(call, { api, app, filter, show })
  for await (const line of api.lines<LogLine>(pathOf(app, { ...filter, limit: pastLines }))) {
    show(line)
  }
  return 0
}

interface LogFilter {
  instance: string | undefined
  region: string | undefined
  limit?: number
  since?: string
  follow?: boolean
}

function pathOf(app: string, filter: LogFilter): string {
  const query = new URLSearchParams()
  for (const [name, value] of Object.entries(filter)) {
    if (value !== undefined) query.set(name, String(value))
  }
  return `/api/v1/apps/${part(app)}/log-stream?${query.toString()}`
}

/** Follows until Ctrl-C; a broken connection is taken up again where it broke. */
async function followLogs(
  { io }: Call,
  options: { api: Api; app: string; filter: LogFilter; show: (line: LogLine) => void },
): Promise<number> {
  const { api, app, filter, show } = options
  const seen = rememberLines()
  // What was said while nobody listened is asked for again.
  const from = () => {
    const since = seen.since()
    return since === undefined ? { limit: pastLines } : { since }
  }
  let waitMs = retryMs.first
  let told = false
  for (;;) {
    try {
      for await (const line of api.lines<LogLine>(
        pathOf(app, { ...filter, follow: true, ...from() }),
      )) {
        waitMs = retryMs.first
        told = false
        if (seen.isNew(line)) show(line)
      }
    } catch (error) {
      const gone = isFault(error) && error.whose === 'user' && error.code !== 'wait_timeout'
      if (io.signal.aborted || gone || !isFault(error)) throw error
      if (!told) complain(io, `${error.message}; trying again`)
      told = true
    }
    await systemClock.sleep(withJitter(waitMs), io.signal)
    waitMs = Math.min(waitMs * 2, retryMs.most)
    if (io.signal.aborted) throw new Fault('timeout', 'interrupted')
  }
}

export const logs: Command = {
  name: 'logs',
  aliases: ['log'],
  summary: 'View app logs',
  details:
    'View the logs of an app as they come. With --no-tail only what there is. Filter by machine or region.',
  flags: [
    ...aboutApp,
    jsonFlag,
    regionFlag,
    { name: 'machine', short: 'm', kind: 'text', value: 'ID', summary: 'Filter by machine' },
    { name: 'instance', kind: 'text', value: 'ID', summary: 'Filter by machine', hidden: true },
    { name: 'no-tail', short: 'n', kind: 'switch', summary: 'Do not follow the logs' },
    { name: 'follow', short: 'f', kind: 'switch', summary: 'Follow the logs (the default)' },
  ],
  run: runLogs,
}
