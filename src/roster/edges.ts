import { systemClock } from '#core/clock.ts'
import { edgeWordSchema, type EdgeWord } from '#spec/roster.ts'
import type { Bus } from './connection.ts'

export interface EdgesView {
  /** Edges of the region heard from within the last 3 s. */
  live(): string[]
  /** True when every live edge has put this row of the machine, or a newer one, into effect. True with no live edge. */
  applied(machine: string, counter: number): boolean
  /** Requests in flight to the machine, summed over the live edges. */
  sessions(machine: string): number
  /** Called at each word; returns the function that ends it. */
  onWord(callback: () => void): () => void
  /** The machine is gone: drops what edges said of it. */
  forget(machine: string): void
  close(): void
}

const liveMs = 3_000
const subject = (region: string) => `edge.word.${region}`

/** Says an edge's word; lost when the bus is down, which the next one mends. */
export function sayEdgeWord(bus: Bus, word: EdgeWord): void {
  const connection = bus.current()
  if (connection && !connection.isClosed())
    connection.publish(subject(word.region), JSON.stringify(word))
}

/** What the edges of a region have put into effect, from their own words. */
export function watchEdges(bus: Bus, region: string): EdgesView {
  const heard = new Map<string, number>()
  const said = new Map<string, Map<string, { counter: number; sessions: number }>>()
  const callbacks = new Set<() => void>()
  let closed = false
  let unsubscribe = () => {}

  const take = (word: EdgeWord) => {
    heard.set(word.edge, systemClock.now())
    if (word.machine !== undefined && word.counter !== undefined) {
      const ofMachine =
        said.get(word.machine) ?? new Map<string, { counter: number; sessions: number }>()
      const before = ofMachine.get(word.edge)
      if (!before || before.counter <= word.counter) {
        ofMachine.set(word.edge, { counter: word.counter, sessions: word.sessions ?? 0 })
      }
      said.set(word.machine, ofMachine)
    }
    for (const callback of callbacks) callback()
  }

  void bus.connected.then(
    (connection) => {
      if (closed) return
      const subscription = connection.subscribe(subject(region), {
        callback: (_error, message) => {
          let word
          try {
            word = edgeWordSchema.safeParse(message.json())
          } catch {
            return // Not JSON: no edge of ours.
          }
          if (word.success) take(word.data)
        },
      })
      unsubscribe = () => subscription.unsubscribe()
    },
    () => {}, // Reported by the connection itself.
  )

  const live = () => {
    const now = systemClock.now()
    return [...heard].filter(([, at]) => now - at <= liveMs).map(([edge]) => edge)
  }
  return {
    live,
    applied: (machine, counter) =>
      live().every((edge) => (said.get(machine)?.get(edge)?.counter ?? -1) >= counter),
    sessions: (machine) =>
      live().reduce((sum, edge) => sum + (said.get(machine)?.get(edge)?.sessions ?? 0), 0),
    onWord(callback) {
      callbacks.add(callback)
      return () => void callbacks.delete(callback)
    },
    forget: (machine) => void said.delete(machine),
    close() {
      closed = true
      unsubscribe()
    },
  }
}
