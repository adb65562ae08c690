import { Fault, isFault } from '#core/fault.ts'
import { limits } from '#core/limits.ts'
import type { HostUpdate } from '#spec/host-api.ts'
import {
  execInputSchema,
  leaseSchema,
  type ExecResult,
  type Lease,
  type Machine,
} from '#spec/machine.ts'
import { writeProgramQuery, type ProgramQuery } from '#spec/program.ts'
import type { WebSocket } from '#sys/web-socket.ts'
import { openSecrets, type AppRecord } from '../apps/index.ts'
import type { ControlContext } from '../context.ts'
import { callHost, openHostSocket, type HostCall } from '../hosts/index.ts'
import { markGone, remember } from './placements.ts'
import { machineNotFound, placementOf } from './read.ts'
import { notePushed, refreshSecrets } from './secrets-push.ts'
import { checkImageAccess, checkMachineInput, describeIssue } from './validate.ts'

export const machineVerbs = [
  'start',
  'stop',
  'restart',
  'signal',
  'cordon',
  'uncordon',
  'suspend',
] as const
export type MachineVerb = (typeof machineVerbs)[number]

export interface ActOptions {
  /** The lease nonce that the caller showed. MCH-55. */
  nonce?: string | undefined
  source?: 'user' | 'proxy' | 'flyd'
  /** Who takes a lease. */
  owner?: string
  query?: Record<string, string | undefined>
  body?: unknown
}

/** An update may pull an image, drain, stop and start. */
const updateTimeoutMs = 15 * 60_000
/** A stop waits for its grace (at most 300 s) and the drain before it. */
const actionTimeoutMs = (limits.killTimeoutSecondsMax * 2 + 60) * 1000

async function callMachine<T>(
  ctx: ControlContext,
  app: AppRecord,
  id: string,
  call: Pick<HostCall, 'method' | 'path' | 'query' | 'body' | 'timeoutMs'>,
  options: ActOptions,
): Promise<T> {
  const placement = await placementOf(ctx, app, id)
  try {
    return await callHost<T>(ctx, placement, {
      ...call,
      path: `/v1/machines/${id}${call.path}`,
      nonce: options.nonce,
      source: options.source ?? 'user',
      ...(options.owner ? { owner: options.owner } : {}),
    })
  } catch (error) {
    const gone = isFault(error, 'not_found') && placement.status === 'gone'
    // Whoever gives back the lease of what it has destroyed looks for these words.
    if (gone && !/lease not found/.test(error.message)) throw machineNotFound(app, id)
    throw error
  }
}

/**
 * MCH-30…33: replaces the config; the machine keeps its id, name and place. Returns the machine with its new
 * `instance_id`. Faults: `invalid`, `precondition_failed` (current_version, min_secrets_version), `lease_held`.
 */
export async function updateMachine(
  ctx: ControlContext,
  app: AppRecord,
  id: string,
  raw: unknown,
  options: ActOptions = {},
): Promise<Machine> {
  const { input } = checkMachineInput(app, raw)
  await checkImageAccess(ctx, app, input.config.image)
  const secrets = input.skip_secrets ? undefined : await openSecrets(ctx, app)
  const body: HostUpdate = { input, ...(secrets ? { secrets } : {}) }
  const call = { method: 'POST', path: '', body, timeoutMs: updateTimeoutMs }
  const machine = await callMachine<Machine>(ctx, app, id, call, options)
  await remember(ctx, machine)
  if (secrets) {
    const { host_id } = await placementOf(ctx, app, id)
    await notePushed(ctx, app, host_id, secrets.version)
  }
  return machine
}

/** MCH-34…36, 40, 80: one verb; the answer is the host's. A start runs with the newest secrets (SEC-3). */
export async function machineAction(
  ctx: ControlContext,
  app: AppRecord,
  id: string,
  verb: MachineVerb,
  options: ActOptions = {},
): Promise<Record<string, unknown>> {
  if (verb === 'start' || verb === 'restart') {
    await refreshSecrets(ctx, app, await placementOf(ctx, app, id))
  }
  const answer = await callMachine<Record<string, unknown> | undefined>(
    ctx,
    app,
    id,
    {
      method: 'POST',
      path: `/${verb}`,
      timeoutMs: actionTimeoutMs,
      ...(options.query ? { query: options.query } : {}),
      ...(options.body === undefined ? {} : { body: options.body }),
    },
    options,
  )
  return answer ?? { ok: true }
}

/** MCH-37: `kill` destroys from any state. Destroying what is gone already is no error. */
export async function destroyMachine(
  ctx: ControlContext,
  app: AppRecord,
  id: string,
  options: ActOptions & { kill?: boolean } = {},
): Promise<void> {
  const placement = await placementOf(ctx, app, id)
  try {
    await callMachine(
      ctx,
      app,
      id,
      {
        method: 'DELETE',
        path: '',
        query: options.kill ? { kill: 'true' } : {},
        timeoutMs: actionTimeoutMs,
      },
      options,
    )
  } catch (error) {
    if (!isFault(error, 'not_found')) throw error
    if (placement.status === 'gone') throw error
  }
  await markGone(ctx, id)
}

/** Runs a command in the machine. `cmd` is one line, `command` a list. */
export async function execMachine(
  ctx: ControlContext,
  app: AppRecord,
  id: string,
  raw: unknown,
  options: ActOptions = {},
): Promise<ExecResult> {
  const parsed = execInputSchema.safeParse(raw)
  if (!parsed.success) throw new Fault('invalid', describeIssue(parsed.error))
  const { cmd, command, timeout } = parsed.data
  if (!cmd && !command?.length) {
    throw new Fault('invalid', 'exec needs "cmd", one line, or "command", a list of words')
  }
  const seconds = timeout ?? limits.execSecondsDefault
  if (seconds > limits.execSecondsMax) {
    throw new Fault('invalid', `timeout must be at most ${limits.execSecondsMax} seconds`)
  }
  const timeoutMs = seconds * 1000 + 10_000
  return callMachine(ctx, app, id, { method: 'POST', path: '/exec', body: raw, timeoutMs }, options)
}

/** A guest may have to be spoken to first. */
const openTimeoutMs = 30_000

/** The same with open streams: a WebSocket that speaks as spec/program.ts says, paused. */
export async function openProgram(
  ctx: ControlContext,
  app: AppRecord,
  id: string,
  query: Partial<ProgramQuery>,
): Promise<WebSocket> {
  const path = `/v1/machines/${id}/exec?${writeProgramQuery(query)}`
  const placement = await placementOf(ctx, app, id)
  return openHostSocket(ctx, placement, { path, timeoutMs: openTimeoutMs })
}

interface LeaseAnswer {
  data?: unknown
}

/** MCH-55: takes the lease for `ttlSeconds`, or refreshes it when `nonce` is the holder's. Fault `lease_held`. */
export async function acquireLease(
  ctx: ControlContext,
  app: AppRecord,
  id: string,
  options: ActOptions & { ttlSeconds?: number; description?: string } = {},
): Promise<Lease> {
  const ttl = options.ttlSeconds ?? 30
  if (!(ttl >= 1 && ttl <= limits.leaseSecondsMax)) {
    throw new Fault('invalid', `a lease lasts 1 to ${limits.leaseSecondsMax} seconds, not ${ttl}`)
  }
  const body = { ttl, description: options.description ?? '', owner: options.owner ?? '' }
  const call = { method: 'POST', path: '/lease', query: { ttl: String(ttl) }, body }
  return readLease(await callMachine<LeaseAnswer>(ctx, app, id, call, options))
}

/** The lease in force, its nonce left out. Fault `not_found` with the text `lease not found` (MCH-3). */
export async function currentLease(
  ctx: ControlContext,
  app: AppRecord,
  id: string,
): Promise<Lease> {
  const call = { method: 'GET', path: '/lease' }
  const answer = await callMachine<LeaseAnswer>(ctx, app, id, call, {})
  return readLease({ data: { nonce: '', ...(answer.data as object) } })
}

/** Releases the lease that `nonce` holds. */
export async function releaseLease(
  ctx: ControlContext,
  app: AppRecord,
  id: string,
  options: ActOptions,
): Promise<void> {
  await callMachine(ctx, app, id, { method: 'DELETE', path: '/lease' }, options)
}

/** The host answers with the envelope of the public API, or with the bare lease. */
function readLease(answer: LeaseAnswer): Lease {
  return leaseSchema.parse(answer.data ?? answer)
}

/** MCH-85: all pairs. */
export async function machineMetadata(
  ctx: ControlContext,
  app: AppRecord,
  id: string,
): Promise<Record<string, string>> {
  return callMachine(ctx, app, id, { method: 'GET', path: '/metadata' }, {})
}

/** MCH-86: sets one pair, or removes it with null; no new version, no restart. */
export async function setMachineMetadata(
  ctx: ControlContext,
  app: AppRecord,
  id: string,
  pair: { key: string; value: string | null },
  options: ActOptions = {},
): Promise<void> {
  const path = `/metadata/${encodeURIComponent(pair.key)}`
  const call =
    pair.value === null
      ? { method: 'DELETE', path }
      : { method: 'POST', path, body: { value: pair.value } }
  await callMachine(ctx, app, id, call, options)
}
