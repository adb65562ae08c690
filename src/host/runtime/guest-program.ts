import { constants } from 'node:os'
import type { Guest } from '#host/guest/index.ts'
import type { Program, ProgramRequest } from './driver.ts'

/** For the guest to say that a program's time is over, after it is: it need not be one that keeps the time. */
const graceMs = 5_000

/** A program in the machine of this guest, as root: with root's home, not that of the machine's own user. */
export function openInGuest(guest: Guest, request: ProgramRequest): Program {
  const env = { HOME: '/root', ...request.env }
  const program = guest.open({ kind: 'program', user: '', ...request, env })
  const late = setTimeout(() => program.close(), request.timeoutMs + graceMs)
  const over = () => clearTimeout(late)
  program.exited.then(over, over)
  return { ...program, signal: (signal) => program.signal(constants.signals[signal]) }
}
