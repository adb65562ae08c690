import { constants } from 'node:os'
import type { ExitEvent } from '#spec/machine.ts'
import type { ExitRecord } from '#host/runtime/index.ts'

const signalNames = new Map(
  Object.entries(constants.signals).map(([name, number]) => [number as number, name]),
)

/** MCH-68: the line that clients look for. */
export function exitLine(exit: ExitRecord): string {
  if (exit.error !== undefined) return `The machine ended without an exit code: ${exit.error}`
  if (exit.signal === undefined) {
    return `Main child exited normally with code: ${exit.exitCode}`
  }
  const name = signalNames.get(exit.signal) ?? `signal ${exit.signal}`
  return `Main child exited with signal (with signal '${name}', core dumped? false)`
}

/** MCH-15. A signal of -1 means none. */
export function exitEvent(
  exit: ExitRecord,
  why: { requestedStop: boolean; restarting: boolean },
): ExitEvent {
  return {
    exit_code: exit.exitCode,
    guest_exit_code: exit.exitCode,
    guest_signal: exit.signal ?? -1,
    signal: exit.signal ?? -1,
    oom_killed: exit.oomKilled,
    requested_stop: why.requestedStop,
    restarting: why.restarting,
    exited_at: new Date(exit.at).toISOString(),
    ...(exit.error === undefined ? {} : { error: exit.error }),
  }
}
