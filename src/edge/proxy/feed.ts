import { systemClock } from '#core/clock.ts'
import type { Roster } from '#roster/index.ts'
import type { RouteTable } from './route-table.ts'

/**
 * Brings the roster's rows into the route table. Rows from the last good copy that the bus does not know and whose host
 * lives are of machines that went while this edge was not there: they are dropped once the host had time to speak.
 */
export interface Feed {
  /** Resolves once the bus has told its rows, or was silent for 3 s. */
  ready: Promise<void>
  /** True when the bus works and the host has said nothing for three seconds: it is dead, hangs, or is cut off. */
  silent(host: string): boolean
  close(): void
}

const graceMs = 15_000
const hostLivesMs = 3_000

export function startFeed(options: { roster: Roster; region: string; table: RouteTable }): Feed {
  const { roster, region, table } = options
  const stop = new AbortController()
  const seen = new Set<string>()
  const hostSeen = new Map<string, number>()
  const startedAt = systemClock.now()
  const watcher = roster.watch({
    regions: [region],
    onRow(row) {
      seen.add(row.id)
      table.put(row)
    },
    onForget(gone) {
      seen.delete(gone.id)
      table.forget(gone)
    },
    onHost: (host) => void hostSeen.set(host.host, systemClock.now()),
  })

  const sinceHeardMs = (host: string) => systemClock.now() - (hostSeen.get(host) ?? startedAt)
  const dropUnsaid = () => {
    const unsaid = [...table.apps()]
      .flatMap((app) => table.rowsOf(app))
      .filter(
        (row) =>
          !seen.has(row.id) && hostSeen.has(row.host) && sinceHeardMs(row.host) < hostLivesMs,
      )
    for (const row of unsaid) table.forget(row)
  }
  void (async () => {
    await watcher.ready
    while (!stop.signal.aborted) {
      await systemClock.sleep(graceMs, stop.signal).catch(() => {})
      if (!stop.signal.aborted && watcher.healthy()) dropUnsaid()
    }
  })()
  return {
    ready: watcher.ready,
    silent: (host) => watcher.healthy() && sinceHeardMs(host) >= hostLivesMs,
    close() {
      stop.abort()
      watcher.close()
    },
  }
}
