import { pino, type Logger } from 'pino'

export type { Logger }

/** Structured lines on stderr; the parent puts them into the role's log file. Level by HANGAR_LOG. */
export function createLogger(role: string): Logger {
  return pino(
    { name: role, level: process.env['HANGAR_LOG'] ?? 'info', base: null },
    pino.destination({ dest: 2, sync: true }),
  )
}
