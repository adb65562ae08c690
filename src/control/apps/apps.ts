import { sql } from 'kysely'
import { Fault } from '#core/fault.ts'
import { generatedName, newAppId } from '#core/ids.ts'
import { limits } from '#core/limits.ts'
import { appNameSchema, type App } from '#spec/app.ts'
import type { AppRef } from '#spec/host-api.ts'
import type { ControlContext } from '../context.ts'
import { ensureNetwork, holdOrg, type Org } from '../orgs/index.ts'
import { isUniqueViolation, readTogether } from '../store/index.ts'

export interface AppRecord {
  id: string
  number: number
  name: string
  org: Org
  network: number
  networkName: string
  status: App['status']
  /** `''` for an ordinary app. */
  role: string
  secretsVersion: number
  createdAt: Date
}

type Store = Pick<ControlContext, 'db'>

function selectApps(ctx: Store) {
  return ctx.db
    .selectFrom('apps')
    .innerJoin('orgs', 'orgs.id', 'apps.org_id')
    .innerJoin('networks', 'networks.number', 'apps.network')
    .select([
      'apps.id',
      'apps.number',
      'apps.name',
      'apps.network',
      'apps.status',
      'apps.role',
      'apps.secrets_version',
      'apps.created_at',
      'orgs.id as org_id',
      'orgs.number as org_number',
      'orgs.slug as org_slug',
      'orgs.name as org_name',
      'networks.name as network_name',
    ])
    .where('apps.deleted_at', 'is', null)
}

type Row = Awaited<ReturnType<ReturnType<typeof selectApps>['executeTakeFirstOrThrow']>>

const toRecord = (row: Row): AppRecord => ({
  id: row.id,
  number: row.number,
  name: row.name,
  org: { id: row.org_id, number: row.org_number, slug: row.org_slug, name: row.org_name },
  network: row.network,
  networkName: row.network_name,
  status: row.status,
  role: row.role,
  secretsVersion: row.secrets_version,
  createdAt: row.created_at,
})

const appByName = readTogether(async (db, names) => {
  const rows = await selectApps({ db })
    .where('apps.name', '=', sql<string>`any(${names})`)
    .execute()
  return new Map(rows.map((row) => [row.name, toRecord(row)]))
})

/** The live app with this name. */
export function findApp(ctx: Store, name: string): Promise<AppRecord | undefined> {
  return appByName(ctx.db, name)
}

/** Like `findApp`; none is a `not_found` fault. */
export async function getApp(ctx: Store, name: string): Promise<AppRecord> {
  const app = await findApp(ctx, name)
  if (!app) throw new Fault('not_found', `app not found: there is no app named ${name}`)
  return app
}

/** The live app with this id; none is a `not_found` fault. */
export async function getAppById(ctx: Store, id: string): Promise<AppRecord> {
  const row = await selectApps(ctx).where('apps.id', '=', id).executeTakeFirst()
  if (!row) throw new Fault('not_found', `app not found: there is no app with id ${id}`)
  return toRecord(row)
}

/** Keeps the app's deletion from beginning until the transaction ends. Fault `not_found` when it has begun. */
export async function holdApp(trx: Store['db'], app: Pick<AppRecord, 'id'>): Promise<void> {
  const live = await trx
    .selectFrom('apps')
    .select('id')
    .where('id', '=', app.id)
    .where('deleted_at', 'is', null)
    .where('deleting_at', 'is', null)
    .forShare()
    .executeTakeFirst()
  if (!live)
    throw new Fault(
      'not_found',
      `app not found: app ${app.id} was deleted, or is being deleted right now`,
    )
}

/** Of all apps those of one organization, those that were made for one role, one of them. */
export interface AppFilter {
  orgId?: string | undefined
  role?: string | undefined
  id?: string | undefined
}

/** The same as a condition on the table `apps`. */
export const appsMatching = ({ orgId, role, id }: AppFilter) => {
  const is = (column: 'org_id' | 'role' | 'id', value: string | undefined) =>
    value === undefined ? sql<boolean>`true` : sql<boolean>`${sql.ref(`apps.${column}`)} = ${value}`
  return sql<boolean>`${is('org_id', orgId)} and ${is('role', role)} and ${is('id', id)}`
}

/** By name; of very many the first ones, of which `countApps` tells how many there are. */
export async function listApps(ctx: Store, filter: AppFilter): Promise<AppRecord[]> {
  const rows = await selectApps(ctx)
    .where(appsMatching(filter))
    .orderBy('apps.name')
    .limit(limits.appsPerListMax)
    .execute()
  return rows.map(toRecord)
}

export async function countApps(ctx: Store, filter: AppFilter): Promise<number> {
  const { count } = await ctx.db
    .selectFrom('apps')
    .select((eb) => eb.fn.countAll<number>().as('count'))
    .where('deleted_at', 'is', null)
    .where(appsMatching(filter))
    .executeTakeFirstOrThrow()
  return count
}

/** Makes an app. Without a name one is generated. Faults: `invalid`, `name_taken`, `limit_reached`. SEC-30. */
export async function createApp(
  ctx: Store,
  input: {
    name?: string | null | undefined
    org: Org
    network?: string | null | undefined
    role?: string | null | undefined
  },
): Promise<AppRecord> {
  const wanted = input.name || undefined
  const checked = appNameSchema.safeParse(wanted ?? 'generated')
  if (!checked.success) {
    throw new Fault('invalid', `app name "${wanted}" ${checked.error.issues[0]?.message}`)
  }
  const taken = () =>
    new Fault('name_taken', `Name has already been taken: ${wanted ?? 'every generated name'}`)
  // Told before a network is made for nothing; the table decides when two ask at once.
  if (wanted !== undefined && (await findApp(ctx, wanted))) throw taken()
  const network = await ensureNetwork(ctx, input.org.id, input.network || 'default')
  for (let attempt = 0; attempt < 20; attempt++) {
    const name = wanted ?? generatedName()
    try {
      await insertApp(ctx, { name, org: input.org, network, role: input.role ?? '' })
      return await getApp(ctx, name)
    } catch (error) {
      if (!isUniqueViolation(error, 'apps_live_name')) throw error
      if (wanted !== undefined) break
    }
  }
  throw taken()
}

async function insertApp(
  ctx: Store,
  { name, org, network, role }: { name: string; org: Org; network: number; role: string },
): Promise<void> {
  await ctx.db.transaction().execute(async (trx) => {
    await holdOrg(trx, org.id)
    const count = await countApps({ db: trx }, { orgId: org.id })
    if (count >= limits.appsPerOrgMax) {
      throw new Fault(
        'limit_reached',
        `organization ${org.slug} has ${count} apps, the most; destroy some with: fly apps destroy APP`,
      )
    }
    await trx
      .insertInto('apps')
      .values({ id: newAppId(), name, org_id: org.id, network, role, deleted_at: null })
      .execute()
  })
}

/** The first machine or release makes a pending app a deployed one. */
export async function markDeployed(ctx: Store, app: Pick<AppRecord, 'id'>): Promise<void> {
  await ctx.db
    .updateTable('apps')
    .set({ status: 'deployed' })
    .where('id', '=', app.id)
    .where('status', '=', 'pending')
    .execute()
}

/** How hosts name the app. */
export const appRef = (app: AppRecord): AppRef => ({
  id: app.id,
  name: app.name,
  org: app.org.slug,
  network: app.network,
})

/** How many machines and volumes an app has. */
const countsOf = readTogether(async (db, ids) => {
  const placed = (table: 'machine_placements' | 'volume_placements') =>
    sql<number>`(select count(*) from ${sql.table(table)} where app_id = apps.id and status = 'placed')`
  const rows = await db
    .selectFrom('apps')
    .select([
      'id',
      placed('machine_placements').as('machines'),
      placed('volume_placements').as('volumes'),
    ])
    .where('id', '=', sql<string>`any(${ids})`)
    .execute()
  return new Map(rows.map((row) => [row.id, row]))
})

/** §5.1: apps as clients see them, with the number of their machines and volumes. */
export async function describeApps(
  ctx: Pick<ControlContext, 'db' | 'settings'>,
  apps: readonly AppRecord[],
): Promise<App[]> {
  const counts = await Promise.all(apps.map(({ id }) => countsOf(ctx.db, id)))
  return apps.map((app, at) => ({
    id: app.id,
    name: app.name,
    internal_numeric_id: app.number,
    network: app.networkName,
    status: app.status,
    app_role: app.role,
    machine_count: counts[at]?.machines ?? 0,
    volume_count: counts[at]?.volumes ?? 0,
    organization: {
      name: app.org.name,
      slug: app.org.slug,
      internal_numeric_id: app.org.number,
    },
    created_at: app.createdAt.toISOString(),
    ...whereItAnswers(ctx, app.name),
  }))
}

/** The app's name in this cloud's domain and its URLs with the ports that the edge listens on. */
export function whereItAnswers(
  ctx: Pick<ControlContext, 'settings'>,
  name: string,
): { hostname: string; urls: string[] } {
  const { domain, http_port, https_port } = ctx.settings
  const hostname = `${name}.${domain}`
  return {
    hostname,
    urls: [
      `http://${hostname}${http_port === 80 ? '' : `:${http_port}`}`,
      `https://${hostname}${https_port === 443 ? '' : `:${https_port}`}`,
    ],
  }
}
