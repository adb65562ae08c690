import type { Context } from 'hono'
import type { z } from 'zod'
import { Fault } from '#core/fault.ts'

/** The JSON body, checked; an empty one counts as `{}`. The raw JSON comes with it for what must be kept as written. */
export async function readJson<S extends z.ZodType>(
  context: Context,
  schema: S,
): Promise<{ data: z.infer<S>; raw: unknown }> {
  const text = await context.req.text()
  let raw: unknown
  try {
    raw = text === '' ? {} : JSON.parse(text)
  } catch {
    throw new Fault('bad_request', 'the body is not JSON')
  }
  const parsed = schema.safeParse(raw)
  if (!parsed.success) {
    const issues = parsed.error.issues.map((issue) => `${issue.path.join('.')}: ${issue.message}`)
    throw new Fault('invalid', issues.slice(0, 10).join('; '))
  }
  return { data: parsed.data, raw }
}

/** A number in the query; undefined when absent. */
export function queryNumber(context: Context, name: string): number | undefined {
  const text = context.req.query(name)
  if (text === undefined || text === '') return undefined
  const value = Number(text)
  if (!Number.isFinite(value)) throw new Fault('bad_request', `${name} must be a number`)
  return value
}
