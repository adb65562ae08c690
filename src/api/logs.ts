import type { Hono } from 'hono'
import type { LogLine } from '#spec/host-api.ts'
import { appLogs } from '#control/machines/index.ts'
import { appOf, flag, intOf, type Env } from './request.ts'
import { jsonLines } from './stream.ts'

/** OBS-12: one entry as flyctl decodes it. */
const toEntry = (line: LogLine) => ({
  id: line.ns,
  attributes: {
    timestamp: line.timestamp,
    message: line.message,
    level: line.level,
    instance: line.instance,
    region: line.region,
    meta: {
      instance: line.instance,
      region: line.region,
      event: { provider: line.provider },
      http: { request: { id: '', method: '', version: '' }, response: { status_code: 0 } },
      error: { code: 0, message: '' },
      url: { full: '' },
    },
  },
})

export function logRoutes(api: Hono<Env>): void {
  api.get('/api/v1/apps/:app/log-stream', async (c) => {
    const app = await appOf(c, 'read')
    const filter = {
      instance: c.req.query('instance') || undefined,
      region: c.req.query('region') || undefined,
      since: c.req.query('since') || undefined,
      limit: intOf(c.req.query('limit'), 'limit'),
      follow: flag(c.req.query('follow') ?? 'false'),
    }
    return jsonLines(c, (signal) => appLogs(c.var.ctx, app, { ...filter, signal }))
  })

  api.get('/api/v1/apps/:app/logs', async (c) => {
    const app = await appOf(c, 'read')
    const since = c.req.query('next_token') || undefined
    const lines: LogLine[] = []
    const filter = {
      instance: c.req.query('instance') || undefined,
      region: c.req.query('region') || undefined,
      since,
      signal: c.req.raw.signal,
    }
    for await (const line of appLogs(c.var.ctx, app, filter)) lines.push(line)
    const next_token = lines.at(-1)?.ns ?? since ?? ''
    return c.json({ data: lines.map(toEntry), meta: { next_token } })
  })
}
