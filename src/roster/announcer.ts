import type { KV } from '@nats-io/kv'
import { systemClock } from '#core/clock.ts'
import { messageOf } from '#core/fault.ts'
import type { HostRow, MachineRow } from '#spec/roster.ts'
import type { Logger } from '#sys/log.ts'
import type { Bus } from './connection.ts'

export interface Announcer {
  /** Makes this the machine's newest row. Resolves when the bus has it, or at once when the bus is down. Never throws. */
  put(row: MachineRow): Promise<void>
  /** The machine is gone for ever. Never throws. */
  forget(id: string): Promise<void>
  close(): Promise<void>
}

const heartbeatMs = 1_000
const announceAllMs = 5_000

/**
 * A host's voice. The newest row of each machine is kept here and said again every few seconds, so that a bus that lost
 * everything is whole again soon after it is back.
 */
export function startAnnouncer(options: {
  bus: Bus
  region: string
  host: () => HostRow
  log: Logger
}): Announcer {
  const { bus, region, log } = options
  const rows = new Map<string, MachineRow>()
  const stop = new AbortController()
  let bucket: KV | undefined
  let failing = false

  async function attempt(what: string, act: (bucket: KV) => Promise<unknown>): Promise<void> {
    if (!bus.current() || bus.current()?.isClosed()) return
    try {
      bucket ??= await bus.bucket(region)
      await act(bucket)
      failing = false
    } catch (error) {
      // A deleted bucket or a restarted server: look it up anew at the next word.
      bucket = undefined
      if (!failing && !stop.signal.aborted)
        log.warn({ error: messageOf(error) }, `could not ${what}; it is said again`)
      failing = true
    }
  }

  const rowKey = (id: string) => `machine.${options.host().host}.${id}`
  const putRow = (row: MachineRow) =>
    attempt('announce a machine', (kv) => kv.put(rowKey(row.id), JSON.stringify(row)))
  const putHost = () => {
    const row = options.host()
    return attempt('announce the host', (kv) => kv.put(`host.${row.host}`, JSON.stringify(row)))
  }

  async function every(ms: number, act: () => Promise<void>): Promise<void> {
    while (!stop.signal.aborted) {
      await act()
      await systemClock.sleep(ms, stop.signal).catch(() => {})
    }
  }

  void bus.connected.then(
    () => {
      void every(heartbeatMs, putHost)
      void every(announceAllMs, async () => {
        for (const row of rows.values()) await putRow(row)
      })
    },
    () => {}, // Reported by the connection itself.
  )

  return {
    async put(row) {
      const known = rows.get(row.id)
      if (known && known.counter > row.counter) return
      rows.set(row.id, row)
      await putRow(row)
    },
    async forget(id) {
      rows.delete(id)
      await attempt('forget a machine', (kv) => kv.purge(rowKey(id)))
    },
    async close() {
      stop.abort()
    },
  }
}
