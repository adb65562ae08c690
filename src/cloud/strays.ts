import { readdirSync, readFileSync } from 'node:fs'
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

/** cgroups(7): `id:controllers:path` in each line. The groups of a host are the parents of those of its machines. */
export function isMachineOf(host: string, groups: string): boolean {
  const parents = [`hangar-${host}`, `hangar-${host}-vm`]
  return groups.split('\n').some((line) => {
    const path = line.split(':').slice(2).join(':').split('/')
    return path.slice(0, -1).some((name) => parents.includes(name))
  })
}
