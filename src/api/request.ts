import type { HttpBindings } from '@hono/node-server'
import type { Context } from 'hono'
import { Fault } from '#core/fault.ts'
import { wireDurationMs } from '#core/units.ts'
import { getApp, type AppRecord } from '#control/apps/index.ts'
import { requireApp, type Access, type Caller } from '#control/auth/index.ts'
import type { ControlContext } from '#control/index.ts'

export interface Env {
  Bindings: HttpBindings
  Variables: { ctx: ControlContext; requestId: string; caller: Caller }
}
export type Request = Context<Env>

/** The app that the path names, when the caller may do this with it. MCH-2: 404 when there is none, 403 when not. */
export async function appOf(c: Request, access: Access): Promise<AppRecord> {
  const app = await getApp(c.var.ctx, c.req.param('app') ?? '')
  requireApp(c.var.caller, app, access)
  return app
}

export function param(c: Request, name: string): string {
  return c.req.param(name) ?? ''
}

/** The body as JSON; undefined when there is none. */
export async function jsonBody(c: Request): Promise<unknown> {
  const text = await c.req.text()
  if (text.trim() === '') return undefined
  try {
    return JSON.parse(text)
  } catch (cause) {
    throw new Fault('bad_request', `the body is not JSON: ${(cause as Error).message}`, { cause })
  }
}

/** The body as a JSON object; an absent one is empty. */
export async function objectBody(c: Request): Promise<Record<string, unknown>> {
  const body = (await jsonBody(c)) ?? {}
  if (typeof body !== 'object' || Array.isArray(body)) {
    throw new Fault('bad_request', 'the body must be a JSON object')
  }
  return body as Record<string, unknown>
}

export function flag(value: string | undefined): boolean {
  return value === 'true' || value === '1' || value === ''
}

/** Seconds from `30`, `"30"` or `"30s"`; undefined when absent. */
export function secondsOf(value: unknown, what: string): number | undefined {
  if (value === undefined || value === null || value === '') return undefined
  if (typeof value === 'number') return value
  if (typeof value !== 'string') throw new Fault('bad_request', `${what} must be seconds`)
  if (/^\d+$/.test(value)) return Number(value)
  return wireDurationMs(value) / 1000
}

export function intOf(value: string | undefined, what: string): number | undefined {
  if (value === undefined || value === '') return undefined
  if (!/^\d{1,9}$/.test(value)) throw new Fault('bad_request', `${what} must be a whole number`)
  return Number(value)
}
