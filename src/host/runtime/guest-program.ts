import { constants } from 'node:os'
import type { Guest } from '#host/guest/index.ts'
import type { ExecRequest, ExecResult, Program, ProgramRequest } from './driver.ts'

/** As root: with root's home, not that of the machine's own user. */
const asRoot = (env: Record<string, string> | undefined) => ({
  user: '',
  env: { HOME: '/root', ...env },
})

/** A program in the machine of this guest, to its end. */
export const execInGuest = (guest: Guest, request: ExecRequest): Promise<ExecResult> =>
  guest.exec({ ...request, ...asRoot(request.env) })

/** A program in the machine of this guest, with its streams. */
export function openInGuest(guest: Guest, request: ProgramRequest): Program {
  const program = guest.open({ kind: 'program', ...request, ...asRoot(request.env) })
  return { ...program, signal: (signal) => program.signal(constants.signals[signal]) }
}
