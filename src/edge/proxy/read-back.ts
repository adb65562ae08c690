import type { Admin } from './admin.ts'
import { slotId, type ProxyPaths } from './config.ts'
import { actualFromStats, type Actual } from './reconcile.ts'
import { parseConnections, parseDown, parseMap, parseStat, type PoolStat } from './stats.ts'

/** All that HAProxy has: what an edge adopts, and what it starts from when it is no longer sure. */
export async function readActual(admin: Admin, paths: ProxyPaths): Promise<Actual> {
  const [stat = '', owners = '', http = '', https = ''] = await admin.run([
    'show stat -1 4 -1',
    `show map ${paths.ownersMap}`,
    `show map ${paths.httpMap}`,
    `show map ${paths.httpsMap}`,
  ])
  return actualFromStats(parseStat(stat).servers, {
    owners: parseMap(owners),
    http: parseMap(http),
    https: parseMap(https),
  })
}

/** Asked one by one each slot costs a line of column names; asked for all, every empty slot costs two lines. */
const oneByOneMax = 200

/** The counters of these slots and their servers. */
export async function readCounters(admin: Admin, slots: readonly string[]): Promise<PoolStat> {
  if (slots.length === 0) return parseStat()
  const commands =
    slots.length > oneByOneMax
      ? ['show stat -1 6 -1']
      : slots.map((slot) => `show stat ${slotId(Number(slot.slice('slot'.length)))} 6 -1`)
  return parseStat(...(await admin.run(commands)))
}

/** Requests in flight by `slot/server`, at a seventh of the price of the counters: cheap enough to ask for often. */
export async function readConnections(
  admin: Admin,
  slots: readonly string[],
): Promise<Map<string, number>> {
  return parseConnections(...(await admin.run(slots.map((slot) => `show servers conn ${slot}`))))
}

/** The `slot/server` names that HAProxy has marked down. */
export async function readDown(admin: Admin, slots: readonly string[]): Promise<Set<string>> {
  return parseDown(...(await admin.run(slots.map((slot) => `show servers state ${slot}`))))
}
