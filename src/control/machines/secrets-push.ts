import { sql } from 'kysely'
import { messageOf } from '#core/fault.ts'
import { openSecrets, type AppRecord } from '../apps/index.ts'
import type { ControlContext } from '../context.ts'
import { callHost, type HostRef } from '../hosts/index.ts'
import { hostsOfApp } from './placements.ts'

/** What this process has written down already, so that a create does not write it again. */
const noted = new Map<string, number>()
const notedMax = 100_000

/** Remembers that a host holds at least this version. */
export async function notePushed(
  ctx: ControlContext,
  app: Pick<AppRecord, 'id'>,
  hostId: string,
  version: number,
): Promise<void> {
  const key = `${app.id} ${hostId}`
  // Version 0 is an app without secrets: what a host holds without being told.
  if (version <= (noted.get(key) ?? 0)) return
  await ctx.db
    .insertInto('secret_pushes')
    .values({ app_id: app.id, host_id: hostId, version })
    .onConflict((c) =>
      c.columns(['app_id', 'host_id']).doUpdateSet((eb) => ({
        version: eb.fn<number>('greatest', [eb.ref('secret_pushes.version'), eb.val(version)]),
      })),
    )
    .execute()
  if (noted.size >= notedMax) noted.clear()
  noted.set(key, version)
}

/**
 * SEC-3: gives every host of the app the newest secrets, for the next start of its machines. Returns the hosts that did not
 * answer: the janitor gives it to them when they are back.
 */
export async function pushSecrets(ctx: ControlContext, app: AppRecord): Promise<string[]> {
  const refs = await hostsOfApp(ctx, app)
  const hosts = [...new Map(refs.map((ref) => [ref.host_id, ref])).values()]
  const secrets = await openSecrets(ctx, app)
  const missed: string[] = []
  await Promise.all(
    hosts.map(async (host) => {
      try {
        await callHost(ctx, host, {
          method: 'PUT',
          path: `/v1/apps/${app.id}/secrets`,
          body: secrets,
        })
        await notePushed(ctx, app, host.host_id, secrets.version)
        noteMissed(ctx, app, host.host_id)
      } catch (error) {
        missed.push(host.host_id)
        noteMissed(ctx, app, host.host_id, error)
      }
    }),
  )
  return missed
}

/** Which hosts missed an app's secrets, as far as this process has logged it. */
const missing = new Set<string>()

/** Logs that a host missed them, and that it has them now, but not each of the tries between the two. */
function noteMissed(ctx: ControlContext, app: AppRecord, host: string, error?: unknown): void {
  const key = `${app.id} ${host}`
  if (error === undefined) {
    if (missing.delete(key)) ctx.log.info({ app: app.name, host }, 'secrets pushed after all')
    return
  }
  if (missing.has(key)) return
  if (missing.size >= notedMax) missing.clear()
  missing.add(key)
  const text = 'secrets not pushed; tried again until the host answers'
  ctx.log.warn({ app: app.name, host, error: messageOf(error) }, text)
}

/** Before a start: the machine's host gets the newest secrets unless it has them. */
export async function refreshSecrets(
  ctx: ControlContext,
  app: AppRecord,
  host: HostRef,
): Promise<void> {
  const row = await ctx.db
    .selectFrom('secret_pushes')
    .select('version')
    .where('app_id', '=', app.id)
    .where('host_id', '=', host.host_id)
    .executeTakeFirst()
  if ((row?.version ?? 0) >= app.secretsVersion) return
  const secrets = await openSecrets(ctx, app)
  const path = `/v1/apps/${app.id}/secrets`
  await callHost(ctx, host, { method: 'PUT', path, body: secrets })
  await notePushed(ctx, app, host.host_id, secrets.version)
}

/** Apps with a host that holds older secrets than it should. */
export async function appsWithStaleSecrets(ctx: ControlContext): Promise<string[]> {
  const rows = await ctx.db
    .selectFrom('apps')
    .innerJoin('machine_placements as m', 'm.app_id', 'apps.id')
    .leftJoin('secret_pushes as p', (join) =>
      join.onRef('p.app_id', '=', 'apps.id').onRef('p.host_id', '=', 'm.host_id'),
    )
    .select('apps.id')
    .groupBy('apps.id')
    // Those of a dead host, which no round clears, must not fill every round.
    .orderBy(sql`random()`)
    .where('apps.deleted_at', 'is', null)
    .where('m.status', '=', 'placed')
    .whereRef('apps.secrets_version', '>', (eb) => eb.fn.coalesce('p.version', eb.lit(0)))
    .limit(500)
    .execute()
  return rows.map((row) => row.id)
}
