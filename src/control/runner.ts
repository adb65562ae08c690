import { hostname } from 'node:os'
import { isAlive, processStartTime } from '#sys/process.ts'

/** `host:pid:start`: names this very process in the database, so that another can tell when it is dead. */
export const thisRunner = `${hostname()}:${process.pid}:${processStartTime(process.pid) ?? 0}`

/** Whether the process still lives. One on another machine cannot be asked and counts as living. */
export function runnerLives(runner: string): boolean {
  const [host, pid, startTime] = runner.split(':')
  if (host !== hostname()) return true
  return isAlive({ pid: Number(pid), startTime: Number(startTime) })
}
