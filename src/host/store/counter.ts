import type { DatabaseSync } from 'node:sqlite'

/** How many numbers are reserved on disk at once. */
const block = 10_000

/** An ever-growing number that never repeats, also over crashes: reserved in blocks, so that most steps cost no write. */
export function openCounter(db: DatabaseSync, name: string): () => number {
  const row = db.prepare('SELECT value FROM counters WHERE name = ?').get(name) as
    | { value: number }
    | undefined
  let next = row?.value ?? 1
  let reserved = next
  return () => {
    if (next >= reserved) {
      reserved = next + block
      db.prepare('INSERT OR REPLACE INTO counters (name, value) VALUES (?, ?)').run(name, reserved)
    }
    return next++
  }
}
