import type { Hono } from 'hono'
import { Fault } from '#core/fault.ts'
import { appOf, orgOf, type Env } from './request.ts'

const later = () =>
  new Fault(
    'not_available_yet',
    'managed Postgres is not available yet; run a database as an app with a volume',
  )

/** §6.1: there are no clusters, so lists are empty and everything else says that none can be made. */
export function managedPostgresRoutes(api: Hono<Env>): void {
  const organization = '/api/v1/organizations/:slug'
  for (const path of [`${organization}/postgres`, `${organization}/postgres/deleted`]) {
    api.get(path, async (c) => {
      await orgOf(c, 'know')
      return c.json({ data: [] })
    })
  }
  api.get(`${organization}/postgresv2/regions`, (c) => c.json({ data: [] }))
  const closed = [
    `${organization}/postgres/*`,
    `${organization}/postgresv2`,
    `${organization}/postgresv2/*`,
    '/api/v1/postgres/*',
    '/api/v1/postgresv2/*',
    '/v1/postgres',
    '/v1/postgres/*',
  ]
  for (const path of closed) {
    api.all(path, () => {
      throw later()
    })
  }
  api.post('/api/v1/apps/:app/egress_ips/:ip/promote', async (c) => {
    await appOf(c, 'write')
    throw new Fault('not_available_yet', 'egress addresses are not available yet')
  })
}
