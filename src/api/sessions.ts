import type { Hono } from 'hono'
import { Fault } from '#core/fault.ts'
import type { Env } from './request.ts'

/** §3: who logs in has no token yet, so these stand before the check of tokens. */
export function sessionRoutes(api: Hono<Env>): void {
  for (const path of ['/api/v1/cli_sessions', '/api/v1/cli_sessions/*', '/api/v1/sessions']) {
    api.all(path, () => {
      throw new Fault(
        'not_available_yet',
        'logging in is not available yet; set FLY_ACCESS_TOKEN to a token of this cloud, as: eval "$(hangar env)"',
      )
    })
  }
}
