/** What `work` comes to, or the signal's reason as soon as that is aborted: the work then goes on, and nobody waits for it. */
export async function unlessAborted<T>(signal: AbortSignal, work: Promise<T>): Promise<T> {
  const aborted = Promise.withResolvers<never>()
  const onAbort = () => aborted.reject(signal.reason)
  if (signal.aborted) onAbort()
  signal.addEventListener('abort', onAbort, { once: true })
  try {
    return await Promise.race([work, aborted.promise])
  } finally {
    signal.removeEventListener('abort', onAbort)
  }
}

/** A signal that is aborted with `reason` after `ms`, or with the reason of another one before that. */
export function deadline(
  ms: number,
  reason: () => Error,
  others: readonly AbortSignal[] = [],
): { signal: AbortSignal; clear: () => void } {
  const late = new AbortController()
  const timer = setTimeout(() => late.abort(reason()), ms)
  return {
    signal: AbortSignal.any([late.signal, ...others]),
    clear: () => clearTimeout(timer),
  }
}

/** What `work` comes to within `ms`; otherwise `reason`, or that of another signal. The work goes on unless it heeds its own. */
export async function within<T>(
  { ms, reason, others = [] }: { ms: number; reason: () => Error; others?: readonly AbortSignal[] },
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const { signal, clear } = deadline(ms, reason, others)
  try {
    return await unlessAborted(signal, work(signal))
  } finally {
    clear()
  }
}
