import { Fault } from '#core/fault.ts'
import { newReleaseId } from '#core/ids.ts'
import { transition, type TransitionTable } from '#core/state-machine.ts'
import type { DeployInput, DeployProgress, Release } from '#spec/release.ts'
import { thisRunner } from '../runner.ts'
import type { Db } from './database.ts'
import { insertProgress, news } from './release-progress.ts'

type Store = { db: Db }
type ReleaseStatus = Release['status']

/** A release's life. DEP-1. A client that was taken for gone may come back. */
const releaseTable: TransitionTable<ReleaseStatus, ReleaseStatus> = {
  pending: {
    running: 'running',
    complete: 'complete',
    failed: 'failed',
    interrupted: 'interrupted',
  },
  running: {
    running: 'running',
    complete: 'complete',
    failed: 'failed',
    interrupted: 'interrupted',
  },
  complete: { complete: 'complete' },
  failed: { failed: 'failed' },
  interrupted: {
    interrupted: 'interrupted',
    running: 'running',
    complete: 'complete',
    failed: 'failed',
  },
}

const overStates: readonly ReleaseStatus[] = ['complete', 'failed', 'interrupted']
export const isOver = (status: ReleaseStatus): boolean => overStates.includes(status)

const columns = [
  'id',
  'version',
  'status',
  'driver',
  'strategy',
  'description',
  'reason',
  'image_ref',
  'user',
  'definition',
  'created_at',
  'updated_at',
] as const

interface Row extends Omit<Release, 'created_at' | 'updated_at'> {
  created_at: Date
  updated_at: Date
}

const toRelease = (row: Row): Release => ({
  ...row,
  created_at: row.created_at.toISOString(),
  updated_at: row.updated_at.toISOString(),
})

export interface NewRelease {
  appId: string
  driver: Release['driver']
  status: 'pending' | 'running'
  strategy: string
  description: string
  reason: string
  imageRef: string | null
  user: string
  /** Of a client's release: the token that it speaks with. */
  tokenId?: string
  definition: Record<string, unknown> | null
  input: DeployInput | null
  /** Throws what else is in the way; no other release of the app begins meanwhile. */
  refuse?(db: Db): Promise<void>
  /** The first recorded step of a server release; this process becomes its runner. */
  step?: Record<string, unknown>
}

/**
 * Records a release with the app's next version. While a server release of the app runs there is no other: the Fault
 * `conflict` says whose is in the way.
 */
export async function createRelease(store: Store, release: NewRelease): Promise<Release> {
  const id = newReleaseId()
  await store.db.transaction().execute(async (trx) => {
    await trx.selectFrom('apps').select('id').where('id', '=', release.appId).forUpdate().execute()
    await refuseBesideServer(trx, release.appId)
    await release.refuse?.(trx)
    const { newest } = await trx
      .selectFrom('releases')
      .select((eb) => eb.fn.coalesce(eb.fn.max('version'), eb.lit(0)).as('newest'))
      .where('app_id', '=', release.appId)
      .executeTakeFirstOrThrow()
    await trx
      .insertInto('releases')
      .values({
        id,
        app_id: release.appId,
        version: newest + 1,
        status: release.status,
        driver: release.driver,
        strategy: release.strategy,
        description: release.description,
        reason: release.reason,
        image_ref: release.imageRef,
        user: release.user,
        ...(release.tokenId === undefined ? {} : { token_id: release.tokenId }),
        definition: release.definition && JSON.stringify(release.definition),
        input: release.input && JSON.stringify(release.input),
      })
      .execute()
    if (!release.step) return
    const step = JSON.stringify(release.step)
    await trx
      .insertInto('release_runs')
      .values({ release_id: id, runner: thisRunner, step })
      .execute()
  })
  return getRelease(store, { appId: release.appId, id })
}

async function refuseBesideServer(db: Db, appId: string): Promise<void> {
  const running = await db
    .selectFrom('releases')
    .select(['version', 'user', 'created_at'])
    .where('app_id', '=', appId)
    .where('driver', '=', 'server')
    .where('status', 'in', ['pending', 'running'])
    .executeTakeFirst()
  if (!running) return
  throw new Fault(
    'conflict',
    `release v${running.version} of this app is running, started by ${running.user} at ${running.created_at.toISOString()}; wait until it is over and try again`,
  )
}

/** Fault `not_found`. */
export async function getRelease(
  store: Store,
  { appId, id }: { appId: string; id: string },
): Promise<Release> {
  const row = await store.db
    .selectFrom('releases')
    .select(columns)
    .where('app_id', '=', appId)
    .where('id', '=', id)
    .executeTakeFirst()
  if (!row) throw new Fault('not_found', `release not found: the app has no release ${id}`)
  return toRelease(row)
}

/** Newest first. */
export async function listReleases(
  store: Store,
  { appId, limit = 100 }: { appId: string; limit?: number },
): Promise<Release[]> {
  const rows = await store.db
    .selectFrom('releases')
    .select(columns)
    .where('app_id', '=', appId)
    .orderBy('version', 'desc')
    .limit(limit)
    .execute()
  return rows.map(toRelease)
}

/** The newest release that is complete or running: what the app is meant to be. Undefined before the first deploy. */
export async function currentRelease(
  store: Store,
  { appId }: { appId: string },
): Promise<Release | undefined> {
  const row = await store.db
    .selectFrom('releases')
    .select(columns)
    .where('app_id', '=', appId)
    .where('status', 'in', ['complete', 'running'])
    .orderBy('version', 'desc')
    .limit(1)
    .executeTakeFirst()
  return row && toRelease(row)
}

/**
 * Moves a release to a status and writes its last line of progress when that ends it, in one transaction. Fault
 * `precondition_failed` when the release is over already.
 */
export async function setReleaseStatus(
  store: Store,
  {
    id,
    status,
    message,
    level,
  }: { id: string; status: ReleaseStatus; message?: string; level?: DeployProgress['level'] },
): Promise<void> {
  const ended = [id]
  await store.db.transaction().execute(async (trx) => {
    const row = await trx
      .selectFrom('releases')
      .select(['status', 'version', 'app_id'])
      .where('id', '=', id)
      .forUpdate()
      .executeTakeFirst()
    if (!row) throw new Fault('not_found', `there is no release ${id}`)
    const next = transition(releaseTable, `release v${row.version}`, row.status, status)
    if (next === row.status) return
    await trx
      .updateTable('releases')
      .set({ status: next, updated_at: new Date() })
      .where('id', '=', id)
      .execute()
    if (!isOver(next)) return
    await trx.deleteFrom('release_runs').where('release_id', '=', id).execute()
    await insertProgress(trx, id, {
      level: level ?? (next === 'complete' ? 'info' : 'error'),
      message: message ?? `Release v${row.version} is ${next}`,
      status: next,
    })
    if (next === 'complete') ended.push(...(await supersede(trx, row)))
  })
  for (const one of ended) news.emit(one)
}

/** Ends what clients began before this release and never ended: it is complete, so they are no longer at it. */
async function supersede(
  db: Db,
  { app_id, version }: { app_id: string; version: number },
): Promise<string[]> {
  const older = await db
    .updateTable('releases')
    .set({ status: 'interrupted', updated_at: new Date() })
    .where('app_id', '=', app_id)
    .where('version', '<', version)
    .where('driver', '=', 'client')
    .where('status', 'in', ['pending', 'running'])
    .returning(['id', 'version'])
    .execute()
  for (const one of older) {
    const message = `Release v${one.version} is interrupted: v${version} has taken its place`
    await insertProgress(db, one.id, { level: 'error', message, status: 'interrupted' })
  }
  return older.map((one) => one.id)
}
