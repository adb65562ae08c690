import { forceHttps, type Member, type Routes } from './routes.ts'
import type { ServerStat } from './stats.ts'

/** What HAProxy has, as last read back or as our own commands left it. */
export interface Actual {
  /** Slot → pool. */
  owners: Map<string, string>
  /** Host → slot or `force_https`. */
  http: Map<string, string>
  https: Map<string, string>
  /** Slot → the servers in it, the waker left out. */
  servers: Map<string, Server[]>
}

export interface Server {
  name: string
  machine: string
  address: string
  weight: number
  maxconn: number
  /** `leaving`: takes nothing new and goes once it is idle. */
  state: 'up' | 'down' | 'leaving'
  /** Requests in flight, as last read. */
  sessions: number
}

export type Change =
  | { do: 'own'; slot: string; pool: string }
  | { do: 'disown'; slot: string }
  | { do: 'route'; door: 'http' | 'https'; host: string; to: string; replaces: boolean }
  | { do: 'unroute'; door: 'http' | 'https'; host: string }
  | { do: 'add'; slot: string; server: Server }
  | { do: 'leave'; slot: string; server: Server }
  | { do: 'weigh'; slot: string; server: Server; weight: number }

export interface Diff {
  changes: Change[]
  /** Pools that found no free slot. */
  homeless: string[]
}

export interface DiffOptions {
  /** Slots that nobody owns and nothing is left in, in the order to take them. */
  freeSlots: readonly string[]
  /** True when something accepts connections at the machine's port: only then is its server added (PRX-44). */
  accepts: (member: Member) => boolean
  /** A name that was never given to a server before. */
  newName: (machine: string) => string
}

/**
 * Pure: the changes that lead from what is to what should be. New servers come before the routes that lead to them,
 * and a slot is given up only once its last server is gone.
 */
export function reconcile(routes: Routes, actual: Actual, options: DiffOptions): Diff {
  const { slotOf, changes, homeless } = placePools(routes, actual, options.freeSlots)
  for (const [key, pool] of routes.pools) {
    const slot = slotOf.get(key)
    if (slot === undefined) continue
    changes.push(...diffServers(slot, pool.members, actual.servers.get(slot) ?? [], options))
  }
  for (const door of ['http', 'https'] as const) {
    changes.push(...diffRoutes(door, routes[door], actual[door], slotOf))
  }
  for (const [slot, key] of actual.owners) {
    if (routes.pools.has(key)) continue
    const servers = actual.servers.get(slot) ?? []
    for (const server of servers) {
      if (server.state !== 'leaving') changes.push({ do: 'leave', slot, server })
    }
    if (servers.length === 0) changes.push({ do: 'disown', slot })
  }
  return { changes, homeless }
}

function placePools(routes: Routes, actual: Actual, freeSlots: readonly string[]) {
  const slotOf = new Map<string, string>()
  for (const [slot, key] of actual.owners) if (!slotOf.has(key)) slotOf.set(key, slot)
  const changes: Change[] = []
  const homeless: string[] = []
  let next = 0
  for (const key of routes.pools.keys()) {
    if (slotOf.has(key)) continue
    const slot = freeSlots[next++]
    if (slot === undefined) {
      homeless.push(key)
      continue
    }
    slotOf.set(key, slot)
    changes.push({ do: 'own', slot, pool: key })
  }
  return { slotOf, changes, homeless }
}

/**
 * PRX-31 by weights: leastconn compares requests in flight divided by weight, so with the weight at the soft limit all
 * machines fill up to their soft limits together and none passes its own while another is below.
 */
export const weightOf = (member: Member): number => Math.min(256, Math.max(1, member.softLimit))
export const addressOf = (member: Member): string => `${member.row.ip4}:${member.internalPort}`

function diffServers(
  slot: string,
  members: Map<string, Member>,
  servers: Server[],
  options: DiffOptions,
): Change[] {
  const changes: Change[] = []
  const kept = new Set<string>()
  for (const server of servers) {
    if (server.state === 'leaving') continue
    const member = members.get(server.machine)
    const right =
      member?.usable === true &&
      !kept.has(server.machine) &&
      addressOf(member) === server.address &&
      (member.hardLimit ?? 0) === server.maxconn
    if (!right) {
      changes.push({ do: 'leave', slot, server })
      continue
    }
    kept.add(server.machine)
    const weight = weightOf(member)
    if (weight !== server.weight) changes.push({ do: 'weigh', slot, server, weight })
  }
  const added: Change[] = []
  for (const [machine, member] of members) {
    if (!member.usable || kept.has(machine) || !options.accepts(member)) continue
    const server: Server = {
      name: options.newName(machine),
      machine,
      address: addressOf(member),
      weight: weightOf(member),
      maxconn: member.hardLimit ?? 0,
      state: 'up',
      sessions: 0,
    }
    added.push({ do: 'add', slot, server })
  }
  return [...added, ...changes]
}

function diffRoutes(
  door: 'http' | 'https',
  wanted: Map<string, string>,
  actual: Map<string, string>,
  slotOf: Map<string, string>,
): Change[] {
  const changes: Change[] = []
  for (const [host, key] of wanted) {
    const to = key === forceHttps ? forceHttps : slotOf.get(key)
    const has = actual.get(host)
    if (to === undefined || has === to) continue
    changes.push({ do: 'route', door, host, to, replaces: has !== undefined })
  }
  for (const host of actual.keys()) {
    if (!wanted.has(host)) changes.push({ do: 'unroute', door, host })
  }
  return changes
}

/** The state after a change: what the next diff starts from. */
export function applyChange(actual: Actual, change: Change): void {
  switch (change.do) {
    case 'own':
      actual.owners.set(change.slot, change.pool)
      break
    case 'disown':
      actual.owners.delete(change.slot)
      break
    case 'route':
      actual[change.door].set(change.host, change.to)
      break
    case 'unroute':
      actual[change.door].delete(change.host)
      break
    case 'add': {
      const servers = actual.servers.get(change.slot) ?? []
      servers.push(change.server)
      actual.servers.set(change.slot, servers)
      break
    }
    case 'leave':
      change.server.state = 'leaving'
      break
    case 'weigh':
      change.server.weight = change.weight
      break
  }
}

export function emptyActual(): Actual {
  return { owners: new Map(), http: new Map(), https: new Map(), servers: new Map() }
}

/** `<machine>.<number>`: the machine can be read back from a server's name. */
export const machineOfServer = (name: string): string => name.slice(0, name.lastIndexOf('.'))

export function actualFromStats(
  stats: ServerStat[],
  maps: { owners: Map<string, string>; http: Map<string, string>; https: Map<string, string> },
): Actual {
  const servers = new Map<string, Server[]>()
  for (const stat of stats) {
    if (!stat.server.includes('.')) continue
    const state =
      stat.status === 'maint' || stat.status === 'drain'
        ? 'leaving'
        : stat.status === 'down'
          ? 'down'
          : 'up'
    const server: Server = {
      name: stat.server,
      machine: machineOfServer(stat.server),
      address: stat.address,
      weight: stat.weight,
      maxconn: stat.maxconn,
      state,
      sessions: stat.sessions,
    }
    servers.set(stat.slot, [...(servers.get(stat.slot) ?? []), server])
  }
  return { owners: maps.owners, http: maps.http, https: maps.https, servers }
}
