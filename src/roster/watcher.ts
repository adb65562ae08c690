import type { KvWatchEntry } from '@nats-io/kv'
import type { z } from 'zod'
import { systemClock } from '#core/clock.ts'
import { messageOf } from '#core/fault.ts'
import { hostRowSchema, machineRowSchema, type HostRow, type MachineRow } from '#spec/roster.ts'
import type { Logger } from '#sys/log.ts'
import type { Bus } from './connection.ts'

export interface WatchOptions {
  regions: readonly string[]
  onRow(row: MachineRow): void
  onForget(gone: { host: string; id: string }): void
  onHost?(row: HostRow): void
}

export interface Watcher {
  /** Resolves once every region's present rows were read, or after the bus was silent for 3 s. */
  ready: Promise<void>
  /** False while a region was silent for 3 s. */
  healthy(): boolean
  /** Rows that could not be parsed and were skipped. */
  badRows(): number
  close(): void
}

/** A watcher on a bucket that was deleted and made again hears nothing and says nothing: silence means subscribe anew. */
const silenceMs = 3_000
/** A living host says every row again each 5 s; one it no longer says is gone. */
const unsaidMs = 20_000

interface Known {
  counter: number
  seenAt: number
  host: string
}

export function startWatcher(bus: Bus, options: WatchOptions, log: Logger): Watcher {
  const closed = new AbortController()
  const lastHeard = new Map<string, number>()
  let bad = 0

  const watchers = options.regions.map((region) => {
    const known = new Map<string, Known>()
    const hostHeard = new Map<string, number>()
    let markReady: () => void = () => {}
    const ready = new Promise<void>((resolve) => (markReady = resolve))

    const parse = <S extends z.ZodType>(
      schema: S,
      entry: KvWatchEntry,
    ): z.output<S> | undefined => {
      try {
        return schema.parse(entry.json())
      } catch (error) {
        bad++
        log.warn(
          { key: entry.key, error: messageOf(error) },
          'skipped a roster row that cannot be read',
        )
        return undefined
      }
    }

    const takeMachine = (entry: KvWatchEntry, host: string, id: string) => {
      if (entry.operation !== 'PUT') {
        if (known.delete(id)) options.onForget({ host, id })
        return
      }
      const row = parse(machineRowSchema, entry)
      if (!row || row.id !== id || row.host !== host) return
      const before = known.get(id)
      const seen = { counter: row.counter, seenAt: systemClock.now(), host }
      if (before && before.host === host && before.counter >= row.counter) {
        before.seenAt = seen.seenAt
        return
      }
      known.set(id, seen)
      options.onRow(row)
    }

    const take = (entry: KvWatchEntry) => {
      lastHeard.set(region, systemClock.now())
      const [kind, host, id] = entry.key.split('.')
      if (kind === 'machine' && host && id) return takeMachine(entry, host, id)
      if (kind !== 'host' || !host || entry.operation !== 'PUT') return
      const row = parse(hostRowSchema, entry)
      if (!row) return
      hostHeard.set(host, systemClock.now())
      options.onHost?.(row)
    }

    const forgetUnsaid = () => {
      const now = systemClock.now()
      for (const [id, row] of known) {
        const hostLives = now - (hostHeard.get(row.host) ?? 0) < silenceMs
        if (hostLives && now - row.seenAt > unsaidMs) {
          known.delete(id)
          options.onForget({ host: row.host, id })
        }
      }
    }

    async function subscribe(): Promise<void> {
      const bucket = await bus.bucket(region)
      const iterator = await bucket.watch()
      lastHeard.set(region, systemClock.now())
      const status = await bucket.status()
      let toRead = status.values
      if (toRead === 0) markReady()
      const reading = (async () => {
        for await (const entry of iterator) {
          take(entry)
          if (--toRead <= 0) markReady()
        }
      })()
      reading.catch((error: unknown) =>
        log.warn({ error: messageOf(error) }, 'a roster watch ended'),
      )
      while (!closed.signal.aborted) {
        await systemClock.sleep(500, closed.signal).catch(() => {})
        forgetUnsaid()
        if (systemClock.now() - (lastHeard.get(region) ?? 0) > silenceMs) break
      }
      iterator.stop()
    }

    void (async () => {
      void systemClock.sleep(silenceMs, closed.signal).then(markReady, markReady)
      await bus.connected.catch(() => {})
      while (!closed.signal.aborted) {
        await subscribe().catch(() => systemClock.sleep(500, closed.signal).catch(() => {}))
      }
    })()
    return ready
  })

  return {
    ready: Promise.all(watchers).then(() => {}),
    healthy: () =>
      options.regions.every((r) => systemClock.now() - (lastHeard.get(r) ?? 0) <= silenceMs),
    badRows: () => bad,
    close: () => closed.abort(),
  }
}
