import type { Clock } from '#core/clock.ts'
import type { DeployProgress } from '#spec/release.ts'
import type { Db } from './database.ts'
import { news, readProgress } from './release-progress.ts'
import { getRelease, isOver } from './releases.ts'

/**
 * A release's progress from the first line; with `follow` it goes on until the line that carries a status, or until the
 * signal. A release that ended without such a line (a client drove it) ends with one made up here.
 */
export async function* followProgress(
  ctx: { db: Db; clock: Clock },
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
