import type { HttpBindings } from '@hono/node-server'
import type { Context } from 'hono'
import { Fault, isFault } from '#core/fault.ts'
import { limits } from '#core/limits.ts'
import { wireDurationMs } from '#core/units.ts'
import { getApp, type AppRecord } from '#control/apps/index.ts'
import {
  requireApp,
  requireOrg,
  type Access,
  type Caller,
  type OrgAccess,
} from '#control/auth/index.ts'
import type { ControlContext } from '#control/index.ts'
import { findOrg, type Org } from '#control/orgs/index.ts'

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

/** The organization that the path names, when the caller may do this with it. */
export const orgOf = (c: Request, access: OrgAccess): Promise<Org> =>
  orgNamed(c, param(c, 'slug'), access)

/** The same of one that the query or the body names. */
export async function orgNamed(c: Request, slug: string, access: OrgAccess): Promise<Org> {
  const org = await findOrg(c.var.ctx, slug)
  if (!org) throw new Fault('not_found', `there is no organization ${slug}`)
  requireOrg(c.var.caller, org, access)
  return org
}

export function param(c: Request, name: string): string {
  return c.req.param(name) ?? ''
}

/** What is not UTF-8 is refused: letters put in its place would be stored and given back as if they had been sent. */
const utf8 = new TextDecoder('utf-8', { fatal: true })

/** The body as JSON; undefined when there is none. */
export async function jsonBody(c: Request): Promise<unknown> {
  const bytes = new Uint8Array(await c.req.arrayBuffer())
  if (isDeeper(bytes, limits.jsonDepthMax)) {
    throw new Fault('invalid', `the body is nested deeper than ${limits.jsonDepthMax} levels`)
  }
  try {
    const text = utf8.decode(bytes)
    if (text.trim() === '') return undefined
    // Only what has such an escape is walked through: bodies may be large.
    return unusualEscape.test(text) ? JSON.parse(text, refuseUnstorable) : JSON.parse(text)
  } catch (cause) {
    if (isFault(cause)) throw cause
    throw new Fault('bad_request', `the body is not JSON: ${(cause as Error).message}`, { cause })
  }
}

/** The escapes of NUL and of half a character, which no database and no program's environment can hold. */
const unusualEscape = /\\u(?:0000|d[89a-f])/i

function refuseUnstorable(key: string, value: unknown): unknown {
  for (const text of [key, value]) {
    if (typeof text === 'string' && (text.includes('\0') || !text.isWellFormed())) {
      const where = key === '' ? '' : ` at or in ${JSON.stringify(key)}`
      throw new Fault('invalid', `the body has a NUL or half a character${where}; leave it out`)
    }
  }
  return value
}

/**
 * What is nested deeper could not be written again, which takes a stack frame a level; and a million brackets take the
 * parser a hundred times as long as other letters. So it is told from the bytes, before they are parsed.
 */
function isDeeper(bytes: Uint8Array, levels: number): boolean {
  let depth = 0
  let inText = false
  for (let at = 0; at < bytes.length; at++) {
    const byte = bytes[at]
    if (byte === 0x22) inText = !inText
    // The letter after a backslash, which may be a quote, is skipped.
    else if (inText) at += byte === 0x5c ? 1 : 0
    else if (byte === 0x5b || byte === 0x7b) depth++
    else if (byte === 0x5d || byte === 0x7d) depth--
    if (depth > levels) return true
  }
  return false
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
