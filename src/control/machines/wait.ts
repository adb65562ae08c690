import { randomInt } from 'node:crypto'
import { Fault, isFault } from '#core/fault.ts'
import { limits } from '#core/limits.ts'
import { machineStates } from '#spec/machine.ts'
import type { AppRecord } from '../apps/index.ts'
import type { ControlContext } from '../context.ts'
import { callHost } from '../hosts/index.ts'
import { getMachine, placementOf } from './read.ts'

export interface WaitOptions {
  /** MCH-51: machine states or `settled`; `started` when empty. Any of them ends the wait. */
  states?: readonly string[] | undefined
  /** 1 to 60; 60 when absent. MCH-50. */
  timeoutSeconds?: number | undefined
  /** The version that must have reached the state. */
  instanceId?: string | undefined
  fromEventId?: string | undefined
  signal?: AbortSignal | undefined
}

const waitable: readonly string[] = [...machineStates, 'settled']

/**
 * Returns when the machine is in one of the states. Faults: `wait_timeout`; `bad_request` for an unknown state; `not_found`;
 * what the host says when the state cannot be reached any more (MCH-52). A host that restarts meanwhile is asked again.
 */
export async function waitMachine(
  ctx: ControlContext,
  app: AppRecord,
  id: string,
  options: WaitOptions = {},
): Promise<void> {
  const states = options.states?.length ? options.states : ['started']
  const unknown = states.find((state) => !waitable.includes(state))
  if (unknown !== undefined) {
    throw new Fault(
      'bad_request',
      `cannot wait for state "${unknown}"; known states: ${waitable.join(', ')}`,
    )
  }
  const timeoutSeconds = options.timeoutSeconds ?? limits.waitSecondsMax
  if (!(timeoutSeconds >= 1 && timeoutSeconds <= limits.waitSecondsMax)) {
    throw new Fault('bad_request', `timeout must be 1 to ${limits.waitSecondsMax} seconds`)
  }
  const placement = await placementOf(ctx, app, id)
  if (placement.status === 'gone' && states.includes('destroyed')) return
  const deadline = ctx.clock.now() + timeoutSeconds * 1000
  for (;;) {
    const leftMs = deadline - ctx.clock.now()
    try {
      await callHost(ctx, placement, {
        method: 'GET',
        path: `/v1/machines/${id}/wait`,
        query: {
          state: states,
          timeout: String(Math.max(1, Math.ceil(leftMs / 1000))),
          instance_id: options.instanceId,
          from_event_id: options.fromEventId,
        },
        timeoutMs: Math.max(1_000, leftMs) + 3_000,
        ...(options.signal ? { signal: options.signal } : {}),
      })
      if (!states.includes('settled')) return
      const restMs = await untilRested(ctx, app, id)
      if (restMs <= 0) return
      if (ctx.clock.now() + restMs > deadline) throw waitTimeout(id, states, timeoutSeconds)
      await ctx.clock.sleep(restMs, options.signal)
    } catch (error) {
      if (isFault(error, 'not_found') && states.includes('destroyed')) return
      if (!isFault(error, 'host_unreachable')) throw error
      if (ctx.clock.now() + 300 > deadline) throw waitTimeout(id, states, timeoutSeconds, error)
      await ctx.clock.sleep(200 + randomInt(100), options.signal)
    }
  }
}

/** How long a machine must have been as it is to count as settled: one that crashes at once is not. MCH-51. */
const restedMs = 1_200

/** How much longer the machine must rest, in milliseconds. */
async function untilRested(ctx: ControlContext, app: AppRecord, id: string): Promise<number> {
  const { updated_at, state } = await getMachine(ctx, app, id)
  if (state === 'destroyed') return 0
  return Math.min(restedMs, Date.parse(updated_at) + restedMs - ctx.clock.now())
}

function waitTimeout(id: string, states: readonly string[], seconds: number, cause?: Error): Fault {
  const why = cause ? `: ${cause.message}` : ''
  return new Fault(
    'wait_timeout',
    `machine ${id} was not seen ${states.join(' or ')} in ${seconds} s${why}`,
    { cause },
  )
}
