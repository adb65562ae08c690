import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Home } from './home.ts'
import type { Place } from './state.ts'

/** Pids of the machines' supervisors (conmon) whose files lie in the folder of this host. */
export function strayMachines(home: Home, place: Place): number[] {
  const folder = join(home.data('hosts'), place.id) + '/'
  const pids = readdirSync('/proc').filter((name) => /^\d+$/.test(name))
  return pids.map(Number).filter((pid) => {
    try {
      const argv = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0')
      return /(^|\/)conmon$/.test(argv[0] ?? '') && argv.some((word) => word.includes(folder))
    } catch {
      return false // It ended while we looked.
    }
  })
}
