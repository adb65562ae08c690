import { systemClock } from '#core/clock.ts'
import type { EdgeWord, MachineRow } from '#spec/roster.ts'

/**
 * What this edge tells the hosts: that it lives (each second), that a row is in effect, and how many requests are still
 * in flight to a machine that takes no new ones. A word may be lost, so recent ones are said again.
 */
export interface Words {
  applied(row: MachineRow): void
  close(): void
}

export interface WordsOptions {
  edge: string
  region: string
  say: (word: EdgeWord) => void
  sessions: (row: MachineRow) => number
}

const heartbeatMs = 1_000
const drainingMs = 50
/** Words this young are said again with the heartbeat. */
const repeatMs = 5_000

export function openWords({ edge, region, say, sessions }: WordsOptions): Words {
  const recent = new Map<string, { row: MachineRow; at: number }>()
  const draining = new Map<string, MachineRow>()
  const speak = (row?: MachineRow): number => {
    const at = systemClock.now()
    const word: EdgeWord = { v: 1, edge, region, at }
    if (!row) {
      say(word)
      return 0
    }
    const left = sessions(row)
    say({ ...word, machine: row.id, counter: row.counter, sessions: left })
    return left
  }
  const heartbeat = setInterval(() => {
    speak()
    const now = systemClock.now()
    for (const [id, { row, at }] of recent) {
      speak(row)
      if (now - at > repeatMs) recent.delete(id)
    }
  }, heartbeatMs)
  const drain = setInterval(() => {
    for (const [id, row] of draining) if (speak(row) === 0) draining.delete(id)
  }, drainingMs)
  speak()
  return {
    applied(row) {
      recent.set(row.id, { row, at: systemClock.now() })
      draining.delete(row.id)
      const leaves = !row.ready || row.cordoned || row.state !== 'started'
      if (speak(row) > 0 && leaves) draining.set(row.id, row)
    },
    close() {
      clearInterval(heartbeat)
      clearInterval(drain)
    },
  }
}
