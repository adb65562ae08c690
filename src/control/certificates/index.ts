import { Fault } from '#core/fault.ts'
import type { AppRecord } from '../apps/index.ts'
import type { ControlContext } from '../context.ts'

/** A hostname that an app wants to answer to. Its certificate is ordered once public names are served. */
export interface Certificate {
  hostname: string
  createdAt: Date
  updatedAt: Date
}

const perAppMax = 1_000
const hostnamePattern = /^(\*\.)?([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]{2,63}$/

type Store = Pick<ControlContext, 'db'>
type AppId = Pick<AppRecord, 'id' | 'name'>

function select(ctx: Store, app: AppId) {
  return ctx.db
    .selectFrom('certificates')
    .select(['hostname', 'created_at', 'updated_at'])
    .where('app_id', '=', app.id)
    .orderBy('hostname')
}

const toCertificate = (row: { hostname: string; created_at: Date; updated_at: Date }) => ({
  hostname: row.hostname,
  createdAt: row.created_at,
  updatedAt: row.updated_at,
})

/** By name; only those that contain `filter`. */
export async function listCertificates(
  ctx: Store,
  app: AppId,
  filter = '',
): Promise<Certificate[]> {
  const rows = await select(ctx, app).execute()
  return rows.filter((row) => row.hostname.includes(filter.toLowerCase())).map(toCertificate)
}

/** Fault `not_found`. */
export async function getCertificate(
  ctx: Store,
  app: AppId,
  hostname: string,
): Promise<Certificate> {
  const row = await select(ctx, app)
    .where('hostname', '=', hostname.toLowerCase())
    .executeTakeFirst()
  if (row) return toCertificate(row)
  throw new Fault('not_found', `app ${app.name} has no certificate for ${hostname}`)
}

/** Records the hostname; again is no error. Faults: `invalid`, `limit_reached`. */
export async function addCertificate(
  ctx: Store,
  app: AppId,
  hostname: unknown,
): Promise<Certificate> {
  const name = typeof hostname === 'string' ? hostname.toLowerCase().replace(/\.$/, '') : ''
  if (name.length > 253 || !hostnamePattern.test(name)) {
    throw new Fault(
      'invalid',
      `hostname must be a name like www.example.com, not ${JSON.stringify(hostname)}`,
    )
  }
  if ((await select(ctx, app).execute()).length >= perAppMax) {
    throw new Fault('limit_reached', `app ${app.name} has ${perAppMax} certificates, the most`)
  }
  await ctx.db
    .insertInto('certificates')
    .values({ app_id: app.id, hostname: name })
    .onConflict((c) => c.columns(['app_id', 'hostname']).doNothing())
    .execute()
  return getCertificate(ctx, app, name)
}

/** Fault `not_found`. */
export async function removeCertificate(ctx: Store, app: AppId, hostname: string): Promise<void> {
  const { hostname: name } = await getCertificate(ctx, app, hostname)
  await ctx.db
    .deleteFrom('certificates')
    .where('app_id', '=', app.id)
    .where('hostname', '=', name)
    .execute()
}
