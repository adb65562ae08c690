import { Fault } from '#core/fault.ts'

const code = (error: unknown): unknown => (error as NodeJS.ErrnoException | undefined)?.code

export const diskFull = (cause?: unknown): Fault =>
  new Fault(
    'insufficient_capacity',
    "the host's disk is full; remove machines, volumes or snapshots from the host, or use another one",
    { cause },
  )

/** What a program says of a disk that is full, or of which its user may have no more. */
export const saysDiskFull = (words: string): boolean =>
  /No space left on device|Disk quota exceeded/.test(words)

/** The error itself, or in words for whoever is to do something about it when a system call found the disk full. */
export function explainDiskFull(error: unknown): unknown {
  for (let cause = error; cause instanceof Error; cause = cause.cause) {
    if (code(cause) === 'ENOSPC' || code(cause) === 'EDQUOT') return diskFull(error)
  }
  return error
}
