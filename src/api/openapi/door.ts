import { createHash } from 'node:crypto'
import type { Hono } from 'hono'
import type { Env } from '../request.ts'
import { openApiDocument } from './document.ts'

/** Made when it is asked for the first time: it is the same for as long as the process lives. */
let served: { text: string; etag: string } | undefined

function document(): { text: string; etag: string } {
  if (!served) {
    const text = JSON.stringify(openApiDocument())
    served = { text, etag: `"${createHash('sha256').update(text).digest('base64url')}"` }
  }
  return served
}

/** `GET /openapi.json`, for everybody. */
export function openApiRoutes(api: Hono<Env>): void {
  api.get('/openapi.json', (c) => {
    const { text, etag } = document()
    c.header('etag', etag)
    c.header('cache-control', 'public, max-age=300')
    if (c.req.header('if-none-match')?.includes(etag)) return c.body(null, 304)
    return c.body(text, 200, { 'content-type': 'application/json' })
  })
}
