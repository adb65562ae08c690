import type { ResolvedGuest } from '#spec/guest-size.ts'
import type { HostRow } from '#spec/roster.ts'
import { regionsOf } from './regions.ts'

export { regionPreferences, regionsOf } from './regions.ts'

/** A host not heard from for longer gets no new machine. */
export const hostStaleMs = 10_000

/**
 * Shared CPUs that fit a real one: each is promised 1/16 of it (MCH-62). A performance CPU is promised a whole one, and
 * memory is never promised twice. A stopped machine holds nothing (MCH-34).
 */
export const sharedPerCpu = 16

export interface Demand {
  /** Preferences, best first: codes or aliases. Empty means any region. MCH-22. */
  regions: readonly string[]
  guest: Pick<ResolvedGuest, 'cpus' | 'cpu_kind' | 'memory_mb'>
  count: number
  /** Hosts that already run machines of this app, one entry for each machine: others are preferred. MCH-90. */
  nearHosts?: readonly string[]
  /** The host that holds the machine's volume: no other is tried. MCH-24. */
  pinnedHost?: string
}

export type Placement = { hosts: string[] } | { error: string }

interface Candidate {
  row: HostRow
  /** Real CPUs that may still be promised. */
  cpus: number
  memoryMb: number
  /** Machines of this app, with those just placed. */
  neighbours: number
}

/**
 * Picks a host for each of `count` machines, spread over as many hosts as fit them (MCH-90). The first preference that
 * fits all of them wins; a request is never split between preferences (REG-4). The error carries the text of MCH-3,
 * which clients look for; answer it as `insufficient_capacity` (MCH-92). Pure: the same input gives the same hosts.
 */
export function place(input: {
  hosts: readonly HostRow[]
  now: number
  demand: Demand
}): Placement {
  const { demand } = input
  const live = input.hosts.filter((row) => input.now - row.at <= hostStaleMs)
  if (demand.pinnedHost !== undefined) return placePinned(live, demand, demand.pinnedHost)
  const known = [...new Set(live.map((row) => row.region))].toSorted()
  const preferences = demand.regions.length === 0 ? ['any'] : demand.regions
  let reason = 'no host is up'
  for (const preference of preferences) {
    const regions = regionsOf(preference, known)
    if (regions.length === 0) {
      reason = `no host is up in region ${preference}; regions with hosts: ${known.join(', ') || 'none'}`
      continue
    }
    const rows = live.filter((row) => regions.includes(row.region))
    const hosts = fit(rows, demand)
    if (hosts) return { hosts }
    reason = `the hosts of region ${preference} have no room for ${wanted(demand)}: ${room(rows, demand)}`
  }
  return { error: `could not reserve resource for machine: ${reason}` }
}

function placePinned(live: readonly HostRow[], demand: Demand, pinnedHost: string): Placement {
  const row = live.find((host) => host.host === pinnedHost)
  if (!row) {
    return {
      error: `could not reserve resource for machine: host ${pinnedHost}, which holds its volume, is not up`,
    }
  }
  const hosts = fit([row], demand)
  if (hosts) return { hosts }
  return {
    error: `could not reserve resource for machine: host ${pinnedHost}, which holds its volume, has no room for ${wanted(demand)}: ${room([row], demand)}`,
  }
}

/** All of the machines on these hosts, or undefined. */
function fit(rows: readonly HostRow[], demand: Demand): string[] | undefined {
  const { guest } = demand
  const shared = guest.cpu_kind === 'shared'
  const cpus = shared ? guest.cpus / sharedPerCpu : guest.cpus
  const candidates: Candidate[] = rows.map((row) => ({
    row,
    cpus: freeCpus(row, shared),
    memoryMb: row.capacity.memory_mb - row.used.memory_mb,
    neighbours: demand.nearHosts?.filter((host) => host === row.host).length ?? 0,
  }))
  const hosts: string[] = []
  while (hosts.length < demand.count) {
    const best = candidates
      .filter((one) => one.cpus >= cpus && one.memoryMb >= guest.memory_mb)
      .toSorted(compareCandidates)[0]
    if (!best) return undefined
    best.cpus -= cpus
    best.memoryMb -= guest.memory_mb
    best.neighbours += 1
    hosts.push(best.row.host)
  }
  return hosts
}

/** Hosts round what is in use up to whole CPUs: a begun one still has room for shares. */
const freeCpus = ({ capacity, used }: HostRow, shared: boolean): number =>
  capacity.cpus - (shared ? Math.max(0, used.cpus - 1) : used.cpus)

/** Fewest machines of this app first, then the largest free part of its memory; the id decides ties. */
function compareCandidates(a: Candidate, b: Candidate): number {
  const free = (one: Candidate) => one.memoryMb / Math.max(1, one.row.capacity.memory_mb)
  return a.neighbours - b.neighbours || free(b) - free(a) || (a.row.host < b.row.host ? -1 : 1)
}

/** What is left, and what to do about it. */
function room(rows: readonly HostRow[], { guest }: Demand): string {
  const left = rows.slice(0, 5).map((row) => {
    const cpus = Math.max(0, freeCpus(row, guest.cpu_kind === 'shared'))
    const memoryMb = Math.max(0, row.capacity.memory_mb - row.used.memory_mb)
    return `${row.host} has ${cpus} of ${row.capacity.cpus} CPUs and ${memoryMb} MB free`
  })
  return `${left.join(', ')}; ask for less, stop machines or add a host`
}

const wanted = ({ count, guest }: Demand): string =>
  `${count} ${count === 1 ? 'machine' : 'machines'} of ${guest.cpus} ${guest.cpu_kind} CPU and ${guest.memory_mb} MB`
