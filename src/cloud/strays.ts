import { readdirSync, readFileSync } from 'node:fs'
import { findCgroups, removeEmptyCgroups } from '#sys/cgroup.ts'
import type { Place } from './state.ts'

/**
 * Pids of what keeps machines of this host up, containers and monitors of VMs: they are known by their control group, also
 * when every record and folder of them is gone. No process of a machine can leave it.
 */
export function strayMachines(place: Pick<Place, 'id'>): number[] {
  const pids = readdirSync('/proc').filter((name) => /^\d+$/.test(name))
  return pids
    .map(Number)
    .filter((pid) => runsInGroup(pid, (groups) => isMachineOf(place.id, groups)))
}

/** One that is dead keeps its group until somebody asks how it ended, and has no words any more. */
export function runsInGroup(pid: number, wanted: (groups: string) => boolean): boolean {
  try {
    if (!wanted(readFileSync(`/proc/${pid}/cgroup`, 'utf8'))) return false
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8') !== ''
  } catch {
    return false // It ended while we looked.
  }
}

/** The groups of a host are the parents of those of its machines. */
const parentsOf = (host: string) => [`hangar-${host}`, `hangar-${host}-vm`]

/** Removes what a host that was killed left of its control groups, as far as nothing runs in them. */
export function removeGroups({ id }: Pick<Place, 'id'>): void {
  for (const parent of parentsOf(id)) removeEmptyCgroups(findCgroups(), `/${parent}`)
}

/** cgroups(7): `id:controllers:path` in each line. */
export function isMachineOf(host: string, groups: string): boolean {
  const parents = parentsOf(host)
  return groups.split('\n').some((line) => {
    const path = line.split(':').slice(2).join(':').split('/')
    return path.slice(0, -1).some((name) => parents.includes(name))
  })
}
