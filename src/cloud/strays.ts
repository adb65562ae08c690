import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Home } from './home.ts'
import type { Place } from './state.ts'

/** Pids of what keeps machines of this host up: PID 1 of each container, which is known by where its root lies. */
export function strayMachines(home: Home, place: Place): number[] {
  const folder = mountInfoPath(join(home.data('hosts'), place.id) + '/')
  const pids = readdirSync('/proc').filter((name) => /^\d+$/.test(name))
  return pids.map(Number).filter((pid) => {
    try {
      const [program = ''] = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0')
      return program === '/.fly/init' && rootLine(pid).includes(folder)
    } catch {
      return false // It ended while we looked.
    }
  })
}

/** proc_pid_mountinfo(5): the fifth field is the place inside; the overlay's own folders are among the last. */
function rootLine(pid: number): string {
  const lines = readFileSync(`/proc/${pid}/mountinfo`, 'utf8').split('\n')
  return lines.find((line) => line.split(' ')[4] === '/') ?? ''
}

/** Characters that would end a field are written in octal there. */
const mountInfoPath = (path: string) =>
  path.replaceAll(/[ \t\n\\]/g, (c) => `\\${c.charCodeAt(0).toString(8).padStart(3, '0')}`)
