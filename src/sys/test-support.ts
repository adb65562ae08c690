import { systemClock } from '#core/clock.ts'
import { chooseFreePort } from './ports.ts'

/** As long as the slowest machine may need; a wait that is over sooner costs nothing more. */
const patienceMs = 60_000

/** Looks again and again until it is so. Throws what it waited for, as `what` says it at the end. */
export async function eventually<T>(
  what: string | (() => string),
  look: () => T | undefined | false | Promise<T | undefined | false>,
  ms = patienceMs,
): Promise<T> {
  for (const end = performance.now() + ms; ; await systemClock.sleep(10)) {
    const found = await look()
    if (found !== undefined && found !== false) return found
    if (performance.now() < end) continue
    throw new Error(`not within ${ms} ms: ${typeof what === 'string' ? what : what()}`)
  }
}

/** The first port that was not given yet. */
let next = 15_000 + (process.pid % 300) * 16

/**
 * A port of 127.0.0.1 where nobody listens. No connection takes it meanwhile, as one does with those that the kernel
 * chooses, and no other test file beside this one: each has sixteen of its own.
 */
export async function freePort(address = '127.0.0.1'): Promise<number> {
  const port = await chooseFreePort(next, new Set(), address)
  next = port + 1
  return port
}
