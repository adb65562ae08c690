import type { MachineRow } from '#spec/roster.ts'
import { autostopOfMachine, minMachinesRunning } from '../proxy/routes.ts'

/** One running machine at the time of a pass. */
export interface Running {
  row: MachineRow
  /** Requests in flight. */
  load: number
  softLimit: number
  /** Known at the previous pass, and no request came since. */
  quiet: boolean
  /** Up without a break since the previous pass. */
  settled: boolean
  /** Its host has just refused to let it rest: a command runs in it for somebody. */
  inUse?: boolean
}

/**
 * PRX-41 and PRX-42, for the running machines of one app in one region: the one to stop now, or undefined. Pure. A single
 * machine is stopped only when it is idle and nothing came since the previous pass: an app with a steady trickle of
 * short requests is never idle, though each look may find it so. After a start the app is left alone for a whole pass:
 * somebody has just needed that machine, or deploys it.
 */
export function machineToRest(running: Running[], region: string): Running | undefined {
  const kept = running
    .filter(({ row }) => row.primary_region === region)
    .map(({ row }) => minMachinesRunning(row))
  if (running.length <= Math.max(0, ...kept)) return undefined
  if (running.some(({ settled }) => !settled)) return undefined
  const candidates = running.filter(({ row, inUse }) => autostopOfMachine(row) !== 'off' && !inUse)
  if (running.length === 1) {
    const [only] = candidates
    return only && only.load === 0 && only.quiet ? only : undefined
  }
  const full = running.filter(({ load, softLimit }) => load >= softLimit).length
  const excess = running.length - (full + 1)
  if (excess < 1) return undefined
  return candidates.sort(
    (a, b) =>
      a.load - b.load || Number(b.quiet) - Number(a.quiet) || (a.row.id < b.row.id ? -1 : 1),
  )[0]
}
