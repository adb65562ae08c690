import { hostname } from 'node:os'
import type { Clock } from '#core/clock.ts'
import { Fault } from '#core/fault.ts'
import type { DeployInput, Release } from '#spec/release.ts'
import { runnerLives, thisRunner } from '../runner.ts'
import type { Db } from './database.ts'
import { getRelease, setReleaseStatus } from './releases.ts'

/** A runner on another machine that was not seen for longer is taken for dead. */
const runnerStaleMs = 15_000

export interface ReleaseRun {
  release: Release
  appId: string
  input: DeployInput
  step: Record<string, unknown>
}

/** Writes how far the release has come. Fault `conflict` when another process drives it by now. */
export async function saveStep(
  store: { db: Db },
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
export async function touchRun(store: { db: Db }, id: string): Promise<void> {
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
export async function claimAbandoned(ctx: { db: Db; clock: Clock }): Promise<ReleaseRun[]> {
  const rows = await ctx.db
    .selectFrom('release_runs')
    .innerJoin('releases', 'releases.id', 'release_runs.release_id')
    .select(['release_id', 'runner', 'seen_at', 'step', 'app_id', 'input'])
    .where('status', 'in', ['pending', 'running'])
    .execute()
  const claimed: ReleaseRun[] = []
  for (const row of rows) {
    const silentMs = ctx.clock.now() - row.seen_at.getTime()
    const isHere = row.runner.startsWith(`${hostname()}:`)
    if (isHere ? runnerLives(row.runner) : silentMs < runnerStaleMs) continue
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
