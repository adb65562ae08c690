import type { z } from 'zod'
import { Fault } from '#core/fault.ts'
import { describeIssue } from '#control/machines/index.ts'
import { objectBody, type Request } from './request.ts'

/** The body in the shape that the OpenAPI document promises. Fault `invalid` names the field. */
export async function bodyOf<T>(c: Request, schema: z.ZodType<T>): Promise<T> {
  const body = schema.safeParse(await objectBody(c))
  if (!body.success) throw new Fault('invalid', describeIssue(body.error))
  return body.data
}
