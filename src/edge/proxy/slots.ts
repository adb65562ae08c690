import { systemClock } from '#core/clock.ts'
import { slotName } from './config.ts'
import type { Actual } from './reconcile.ts'

/** A slot rests this long before another app gets it. */
const restMs = 2_000

/** Which slots are free, the never used first. */
export interface SlotShelf {
  free(actual: Actual): string[]
  /** The slot was given up just now. */
  rest(slot: string): void
}

export function openSlotShelf(count: number): SlotShelf {
  const restingUntil = new Map<string, number>()
  return {
    free(actual) {
      const now = systemClock.now()
      const fresh: string[] = []
      const rested: string[] = []
      for (let index = 0; index < count; index++) {
        const slot = slotName(index)
        // A slot with servers left in it is not free, whoever owned it.
        if (actual.owners.has(slot) || actual.servers.has(slot)) continue
        const until = restingUntil.get(slot)
        if (until === undefined) fresh.push(slot)
        else if (until < now) rested.push(slot)
      }
      return [...fresh, ...rested]
    },
    rest(slot) {
      restingUntil.set(slot, systemClock.now() + restMs)
    },
  }
}
