import type { Clock } from '#core/clock.ts'

/**
 * Which hosts live, judged once for all calls. A host that hangs takes connections and says nothing: without this every
 * call would wait for its own time limit.
 */
export interface Pulse {
  /** It said something: on the bus, or in answer to a call. */
  alive(id: string): void
  /** Was silent when it was asked directly. */
  missed(id: string): void
  /** Silent on the bus, and silent when asked. Never true of a host that was not asked. */
  lost(id: string): boolean
  /** Milliseconds since it last said something. */
  silentMs(id: string): number
  /**
   * Calls `cut` once when the host is lost for `patienceMs`, at the next `cutLost` after that. Returns what ends the watch.
   */
  onLost(id: string, patienceMs: number, cut: () => void): () => void
  cutLost(): void
}

interface Beat {
  aliveAt: number
  lostAt: number | undefined
  calls: Set<{ patienceMs: number; cut: () => void }>
}

export function openPulse(clock: Clock): Pulse {
  const beats = new Map<string, Beat>()
  const beatOf = (id: string): Beat => {
    let beat = beats.get(id)
    if (!beat) beats.set(id, (beat = { aliveAt: 0, lostAt: undefined, calls: new Set() }))
    return beat
  }
  return {
    alive(id) {
      const beat = beatOf(id)
      beat.aliveAt = clock.now()
      beat.lostAt = undefined
    },
    missed: (id) => void (beatOf(id).lostAt ??= clock.now()),
    lost: (id) => beats.get(id)?.lostAt !== undefined,
    silentMs: (id) => clock.now() - (beats.get(id)?.aliveAt ?? 0),
    onLost(id, patienceMs, cut) {
      const { calls } = beatOf(id)
      const call = { patienceMs, cut }
      calls.add(call)
      return () => void calls.delete(call)
    },
    cutLost() {
      for (const { lostAt, calls } of beats.values()) {
        if (lostAt === undefined) continue
        for (const call of calls) {
          if (clock.now() - lostAt < call.patienceMs) continue
          calls.delete(call)
          call.cut()
        }
      }
    },
  }
}
