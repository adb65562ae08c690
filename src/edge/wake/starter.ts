import { systemClock } from '#core/clock.ts'
import { isFault, messageOf } from '#core/fault.ts'
import { wakeResultSchema, type WakeResult } from '#spec/host-api.ts'
import type { MachineRow } from '#spec/roster.ts'
import { callJson } from '#sys/http-client.ts'
import type { Logger } from '#sys/log.ts'

/** Asks hosts to start, stop and suspend their machines. One start at a time for each machine, shared by all who wait. */
export interface Starter {
  /** Resolves when the machine is ready for traffic, with its row; rejects with what the host said. */
  wake(machine: MachineRow): Promise<MachineRow>
  waking(machineId: string): boolean
  /** Stops or suspends; a refused suspend becomes a stop (PRX-43), but for `conflict`: it is in use otherwise. */
  rest(machine: MachineRow, how: 'stop' | 'suspend'): Promise<void>
}

export interface StarterOptions {
  key: string
  holdMs: number
  log: Logger
  /** The row that a wake brought back, before the bus has it. */
  onRow: (row: MachineRow) => void
}

const firstRetryMs = 100
const retryMsMax = 2_000
const refusedMs = 1_000
const restTimeoutMs = 330_000

export function openStarter({ key, holdMs, log, onRow }: StarterOptions): Starter {
  const waking = new Map<string, Promise<MachineRow>>()
  /** What a host said no to, it is not asked again at once by each request that comes. */
  const refused = new Map<string, { until: number; error: unknown }>()
  const headers = { authorization: `Bearer ${key}`, 'x-hangar-source': 'proxy' }
  const ask = async (machine: MachineRow, verb: string, timeoutMs: number): Promise<unknown> =>
    await callJson(machine.host_api, {
      method: 'POST',
      path: `/v1/machines/${machine.id}/${verb}`,
      headers,
      body: {},
      timeoutMs,
    })

  /** A host that cannot be reached is being restarted: it is asked again until the hold is over. */
  async function wakeWithRetries(machine: MachineRow): Promise<MachineRow> {
    const deadline = systemClock.now() + holdMs
    let delay = firstRetryMs
    for (;;) {
      try {
        const left = Math.max(1, deadline - systemClock.now())
        const result: WakeResult = wakeResultSchema.parse(await ask(machine, 'wake', left))
        return result.row
      } catch (error) {
        if (isFault(error) || systemClock.now() + delay > deadline) throw error
        log.warn({ machine: machine.id, error: messageOf(error) }, 'its host does not answer')
        await systemClock.sleep(delay * (0.75 + Math.random() / 2))
        delay = Math.min(retryMsMax, delay * 2)
      }
    }
  }

  return {
    waking: (id) => waking.has(id),
    wake(machine) {
      const shared = waking.get(machine.id)
      if (shared) return shared
      const startedAt = systemClock.now()
      const before = refused.get(machine.id)
      if (before && before.until > startedAt) return Promise.reject(before.error)
      refused.delete(machine.id)
      const mine = wakeWithRetries(machine)
        .then((row) => {
          log.info(
            { machine: machine.id, app: machine.app, ms: systemClock.now() - startedAt },
            'woke a machine',
          )
          onRow(row)
          return row
        })
        .catch((error: unknown) => {
          refused.set(machine.id, { until: systemClock.now() + refusedMs, error })
          throw error
        })
        .finally(() => waking.delete(machine.id))
      waking.set(machine.id, mine)
      return mine
    },
    async rest(machine, how) {
      if (how === 'suspend') {
        try {
          await ask(machine, 'suspend', restTimeoutMs)
          return
        } catch (error) {
          if (isFault(error, 'conflict')) throw error
          log.info(
            { machine: machine.id, error: messageOf(error) },
            'cannot suspend it; stopping it',
          )
        }
      }
      await ask(machine, 'stop', restTimeoutMs)
    },
  }
}
