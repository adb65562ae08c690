import { randomInt } from 'node:crypto'
import { createInterface } from 'node:readline'
import { messageOf } from '#core/fault.ts'
import { limits } from '#core/limits.ts'
import { logLineSchema, type LogLine } from '#spec/host-api.ts'
import { faultFromAnswer, readBody } from '#sys/http-client.ts'
import type { AppRecord } from '../apps/index.ts'
import type { ControlContext } from '../context.ts'
import { streamHost, type HostRef } from '../hosts/index.ts'

export interface LogFilter {
  /** A machine's id. */
  instance?: string | undefined
  region?: string | undefined
  /** Only lines after this cursor, nanoseconds as digits. */
  since?: string | undefined
  /** Newest lines of the past; 100 when absent. */
  limit?: number | undefined
}

/** A past read waits this long for a host; a slower one is left out. */
const pastTimeoutMs = 5_000

/** Hosts that have or had machines of the app. */
async function hostsWithLogs(
  ctx: ControlContext,
  app: AppRecord,
  filter: LogFilter,
): Promise<HostRef[]> {
  let query = ctx.db
    .selectFrom('machine_placements')
    .select(['host_id', 'host_api'])
    .distinctOn('host_id')
    .where('app_id', '=', app.id)
    .where('status', 'in', ['placing', 'placed', 'gone'])
  if (filter.instance) query = query.where('machine_id', '=', filter.instance)
  if (filter.region) query = query.where('region', '=', filter.region)
  return query.execute()
}

/** The lines of one host as they come. Ends with the host's answer, or by the signal. A broken line is skipped. */
async function* hostLines(
  ctx: ControlContext,
  app: AppRecord,
  host: HostRef,
  options: LogFilter & { follow: boolean; signal: AbortSignal },
): AsyncGenerator<LogLine> {
  const answer = await streamHost(ctx, host, {
    method: 'GET',
    path: `/v1/apps/${app.id}/logs`,
    query: {
      instance: options.instance,
      since: options.since,
      limit: options.limit === undefined ? undefined : String(options.limit),
      follow: options.follow ? 'true' : undefined,
    },
    // Silence is normal on a followed stream; its end is told by the connection.
    timeoutMs: options.follow ? 0 : pastTimeoutMs,
    signal: options.signal,
  })
  if (answer.status >= 400) {
    const text = (await readBody(answer.body, 64 * 1024)).toString('utf8')
    throw faultFromAnswer(answer.status, text, 'GET logs')
  }
  try {
    for await (const line of createInterface({ input: answer.body })) {
      if (line.trim() === '') continue
      const parsed = logLineSchema.safeParse(parseJson(line))
      if (!parsed.success) continue
      if (options.region && parsed.data.region !== options.region) continue
      yield parsed.data
    }
  } finally {
    answer.body.destroy()
  }
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

const byTime = (a: LogLine, b: LogLine) =>
  a.ns.length - b.ns.length || (a.ns < b.ns ? -1 : a.ns > b.ns ? 1 : 0)

/** What the hosts have, oldest first, at most `limit` lines: the newest, or with `since` the first after it. */
async function pastLines(
  ctx: ControlContext,
  app: AppRecord,
  hosts: readonly HostRef[],
  options: LogFilter & { signal: AbortSignal },
): Promise<LogLine[]> {
  const limit = Math.min(options.limit ?? 100, limits.logLinesPerReadMax)
  const lists = await Promise.all(
    hosts.map(async (host) => {
      const lines: LogLine[] = []
      try {
        for await (const line of hostLines(ctx, app, host, { ...options, limit, follow: false })) {
          lines.push(line)
        }
      } catch (error) {
        ctx.log.warn({ host: host.host_id, error: messageOf(error) }, 'logs of a host are missing')
      }
      return lines
    }),
  )
  const sorted = lists.flat().toSorted(byTime)
  return options.since === undefined ? sorted.slice(-limit) : sorted.slice(0, limit)
}

/**
 * OBS-10…12: the app's log lines, merged from its hosts, oldest first. With `follow` it goes on with new lines until the
 * signal: hosts that come later join in, and one whose stream breaks is read again from where it stopped.
 */
export async function* appLogs(
  ctx: ControlContext,
  app: AppRecord,
  options: LogFilter & { follow?: boolean; signal: AbortSignal },
): AsyncGenerator<LogLine> {
  const hosts = await hostsWithLogs(ctx, app, options)
  const started = `${ctx.clock.now()}000000`
  const past = await pastLines(ctx, app, hosts, options)
  yield* past
  if (!options.follow) return
  const since = past.at(-1)?.ns ?? options.since ?? started
  yield* followHosts(ctx, app, { ...options, since })
}

async function* followHosts(
  ctx: ControlContext,
  app: AppRecord,
  options: LogFilter & { since: string; signal: AbortSignal },
): AsyncGenerator<LogLine> {
  const { signal } = options
  const queue: LogLine[] = []
  const following = new Set<string>()
  let wake: () => void = () => {}

  const follow = async (host: HostRef) => {
    let since = options.since
    let pauseMs = 200
    while (!signal.aborted) {
      try {
        const read = { instance: options.instance, region: options.region, since, signal }
        for await (const line of hostLines(ctx, app, host, { ...read, follow: true })) {
          since = line.ns
          pauseMs = 200
          queue.push(line)
          wake()
          // A reader that cannot keep up slows its host's stream, and nobody else's.
          while (queue.length > limits.logLinesPerReadMax) await ctx.clock.sleep(50, signal)
        }
      } catch (error) {
        if (!signal.aborted) ctx.log.debug({ error: messageOf(error) }, 'log stream broke')
      }
      await ctx.clock.sleep(pauseMs + randomInt(100), signal).catch(() => {})
      pauseMs = Math.min(pauseMs * 2, 5_000)
    }
  }
  const join = async () => {
    while (!signal.aborted) {
      const hosts = await hostsWithLogs(ctx, app, options).catch(() => [])
      for (const host of hosts) {
        if (following.has(host.host_id)) continue
        following.add(host.host_id)
        void follow(host)
      }
      await ctx.clock.sleep(1_000, signal).catch(() => {})
    }
  }

  void join()
  signal.addEventListener('abort', () => wake(), { once: true })
  while (!signal.aborted) {
    const line = queue.shift()
    if (line) yield line
    else await new Promise<void>((resolve) => (wake = resolve))
  }
}
