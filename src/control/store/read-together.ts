import type { Db } from './database.ts'

/** What one query found for many keys, by key. */
type Load<V> = (db: Db, keys: string[]) => Promise<ReadonlyMap<string, V>>

interface Waiting<V> {
  promise: Promise<V | undefined>
  resolve: (value: V | undefined) => void
  reject: (error: unknown) => void
}

/**
 * A read by key, with one query for all who ask in the same turn of the event loop: with hundreds of requests at once the
 * round trips would be most of the work. Nothing is kept: the query is sent after the last of them asked, so each sees
 * all that was committed before it asked. Undefined where there is no such key.
 */
export function readTogether<V>(load: Load<V>): (db: Db, key: string) => Promise<V | undefined> {
  const gathering = new WeakMap<Db, Map<string, Waiting<V>>>()
  const send = async (db: Db, waiting: Map<string, Waiting<V>>) => {
    gathering.delete(db)
    try {
      const found = await load(db, [...waiting.keys()])
      for (const [key, { resolve }] of waiting) resolve(found.get(key))
    } catch (error) {
      for (const { reject } of waiting.values()) reject(error)
    }
  }
  return async (db, key) => {
    // No text of the database has a NUL in it, and the query of all the others would fail.
    if (key.includes('\0')) return undefined
    let waiting = gathering.get(db)
    if (!waiting) {
      const fresh = (waiting = new Map<string, Waiting<V>>())
      gathering.set(db, fresh)
      setImmediate(() => void send(db, fresh))
    }
    let one = waiting.get(key)
    if (!one) waiting.set(key, (one = Promise.withResolvers<V | undefined>()))
    return one.promise
  }
}
