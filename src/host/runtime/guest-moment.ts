import { systemClock } from '#core/clock.ts'

/** Output may have waited in the guest for a host that was away. */
const driftMsMax = 24 * 3_600_000

/** The guest's clock is the guest's, and what is root in it may say anything: a time far from ours is none. */
export function moment(at: number): number {
  const now = systemClock.now()
  return Math.abs(at - now) < driftMsMax ? at : now
}
