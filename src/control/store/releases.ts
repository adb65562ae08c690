import { EventEmitter } from 'node:events'
import { hostname } from 'node:os'
import { sql } from 'kysely'
import type { Clock } from '#core/clock.ts'
import { Fault } from '#core/fault.ts'
import { newReleaseId } from '#core/ids.ts'
import { transition, type TransitionTable } from '#core/state-machine.ts'
import type { DeployInput, DeployProgress, Release } from '#spec/release.ts'
import { isAlive, processStartTime } from '#sys/process.ts'
import { isUniqueViolation, type Db } from './database.ts'

type Store = { db: Db }
type ReleaseStatus = Release['status']

/** A release's life. DEP-1. */
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
  interrupted: { interrupted: 'interrupted' },
}

const overStates: readonly ReleaseStatus[] = ['complete', 'failed', 'interrupted']
export const isOver = (status: ReleaseStatus): boolean => overStates.includes(status)

/** A runner that was not seen for longer is taken for dead when it cannot be asked. */
const runnerStaleMs = 15_000

/** `host:pid:start`: names this very process, so that another can tell when it is dead. */
export const thisRunner = `${hostname()}:${process.pid}:${processStartTime(process.pid) ?? 0}`

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
  definition: Record<string, unknown> | null
  input: DeployInput | null
  /** The first recorded step of a server release; this process becomes its runner. */
  step?: Record<string, unknown>
}

/**
 * Records a release with the app's next version. One server release of an app runs at a time: the Fault `conflict` says
 * whose is in the way.
 */
export async function createRelease(store: Store, release: NewRelease): Promise<Release> {
  const id = newReleaseId()
  await store.db.transaction().execute(async (trx) => {
    await trx.selectFrom('apps').select('id').where('id', '=', release.appId).forUpdate().execute()
    if (release.driver === 'server') await refuseSecond(trx, release.appId)
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

async function refuseSecond(db: Db, appId: string): Promise<void> {
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
  await store.db.transaction().execute(async (trx) => {
    const row = await trx
      .selectFrom('releases')
      .select(['status', 'version'])
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
  })
  news.emit(id)
}

type Line = Pick<DeployProgress, 'level' | 'message' | 'machine' | 'status'>

/** Wakes those who follow a release in this process; the others look again every half second. */
const news = new EventEmitter().setMaxListeners(0)

async function insertProgress(db: Db, id: string, line: Line): Promise<void> {
  await db
    .insertInto('release_progress')
    .values((eb) => ({
      release_id: id,
      seq: eb
        .selectFrom('release_progress')
        .select(sql<number>`coalesce(max(seq), 0) + 1`.as('next'))
        .where('release_id', '=', id),
      level: line.level,
      message: line.message.slice(0, 8_000),
      machine: line.machine ?? null,
      status: line.status ?? null,
    }))
    .execute()
}

/** Adds one line to a release's progress. */
export async function appendProgress(store: Store, id: string, line: Line): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    try {
      await insertProgress(store.db, id, line)
      break
    } catch (error) {
      // Two lines at once want the same number: the second takes the next one.
      if (!isUniqueViolation(error) || attempt >= 20) throw error
    }
  }
  news.emit(id)
}

export async function readProgress(
  store: Store,
  { id, after = 0 }: { id: string; after?: number },
): Promise<DeployProgress[]> {
  const rows = await store.db
    .selectFrom('release_progress')
    .select(['seq', 'at', 'level', 'message', 'machine', 'status'])
    .where('release_id', '=', id)
    .where('seq', '>', after)
    .orderBy('seq')
    .limit(1_000)
    .execute()
  return rows.map(({ seq, at, level, message, machine, status }) => ({
    seq,
    at: at.toISOString(),
    level,
    message,
    ...(machine === null ? {} : { machine }),
    ...(status === null ? {} : { status }),
  }))
}

/**
 * A release's progress from the first line; with `follow` it goes on until the line that carries a status, or until the
 * signal. A release that ended without such a line (a client drove it) ends with one made up here.
 */
export async function* followProgress(
  ctx: Store & { clock: Clock },
  options: { appId: string; id: string; follow: boolean; signal: AbortSignal },
): AsyncGenerator<DeployProgress> {
  let seq = 0
  while (!options.signal.aborted) {
    const woken = Promise.withResolvers<void>()
    const wake = () => woken.resolve()
    news.once(options.id, wake)
    try {
      const release = await getRelease(ctx, options)
      const lines = await readProgress(ctx, { id: options.id, after: seq })
      for (const line of lines) {
        seq = line.seq
        yield line
        if (line.status) return
      }
      if (lines.length > 0) continue
      if (isOver(release.status)) {
        const message = `Release v${release.version} is ${release.status}`
        const level = release.status === 'complete' ? 'info' : 'error'
        yield { seq: seq + 1, at: release.updated_at, level, message, status: release.status }
        return
      }
      if (!options.follow) return
      await Promise.race([woken.promise, ctx.clock.sleep(500, options.signal).catch(() => {})])
    } finally {
      news.off(options.id, wake)
    }
  }
}

export interface ReleaseRun {
  release: Release
  appId: string
  input: DeployInput
  step: Record<string, unknown>
}

/** Writes how far the release has come. Fault `conflict` when another process drives it by now. */
export async function saveStep(
  store: Store,
  id: string,
  step: Record<string, unknown>,
): Promise<void> {
  const changed = await store.db
    .updateTable('release_runs')
    .set({ step: JSON.stringify(step), seen_at: new Date() })
    .where('release_id', '=', id)
    .where('runner', '=', thisRunner)
    .executeTakeFirst()
  if (changed.numUpdatedRows === 0n) throw taken(id)
}

/** Says that this process still drives the release. Fault `conflict` when another does. */
export async function touchRun(store: Store, id: string): Promise<void> {
  const changed = await store.db
    .updateTable('release_runs')
    .set({ seen_at: new Date() })
    .where('release_id', '=', id)
    .where('runner', '=', thisRunner)
    .executeTakeFirst()
  if (changed.numUpdatedRows === 0n) throw taken(id)
}

const taken = (id: string) =>
  new Fault('conflict', `release ${id} is over or driven by another process`)

/** Takes over the server releases whose runner is dead. Each is given to one caller only. */
export async function claimAbandoned(ctx: Store & { clock: Clock }): Promise<ReleaseRun[]> {
  const rows = await ctx.db
    .selectFrom('release_runs')
    .innerJoin('releases', 'releases.id', 'release_runs.release_id')
    .select(['release_id', 'runner', 'seen_at', 'step', 'app_id', 'input'])
    .where('status', 'in', ['pending', 'running'])
    .execute()
  const claimed: ReleaseRun[] = []
  for (const row of rows) {
    if (runnerLives(row.runner, ctx.clock.now() - row.seen_at.getTime())) continue
    const taken = await ctx.db
      .updateTable('release_runs')
      .set({ runner: thisRunner, seen_at: new Date(ctx.clock.now()) })
      .where('release_id', '=', row.release_id)
      .where('runner', '=', row.runner)
      .executeTakeFirst()
    if (taken.numUpdatedRows === 0n) continue
    if (!row.input) {
      await setReleaseStatus(ctx, { id: row.release_id, status: 'interrupted' })
      continue
    }
    const release = await getRelease(ctx, { appId: row.app_id, id: row.release_id })
    claimed.push({ release, appId: row.app_id, input: row.input, step: row.step })
  }
  return claimed
}

function runnerLives(runner: string, silentMs: number): boolean {
  if (runner === thisRunner) return true
  const [host, pid, startTime] = runner.split(':')
  if (host === hostname()) return isAlive({ pid: Number(pid), startTime: Number(startTime) })
  return silentMs < runnerStaleMs
}
