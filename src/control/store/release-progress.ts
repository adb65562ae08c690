import { EventEmitter } from 'node:events'
import { sql } from 'kysely'
import type { DeployProgress } from '#spec/release.ts'
import { isUniqueViolation, type Db } from './database.ts'

export type Line = Pick<DeployProgress, 'level' | 'message' | 'machine' | 'status'>

/** Wakes those who follow a release in this process; the others look again every half second. */
export const news = new EventEmitter().setMaxListeners(0)

/** Adds a line within a transaction of the caller, who wakes the followers by `news` when it is done. */
export async function insertProgress(db: Db, id: string, line: Line): Promise<void> {
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
export async function appendProgress(store: { db: Db }, id: string, line: Line): Promise<void> {
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
  store: { db: Db },
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
