import { Fault, isFault, messageOf } from '#core/fault.ts'
import { hostInfoSchema, type HostInfo } from '#spec/host-api.ts'
import { leaseNonceHeader } from '#spec/machine.ts'
import type { HostRow } from '#spec/roster.ts'
import { callJson, httpRequest, type HttpAnswer, type HttpRequest } from '#sys/http-client.ts'
import type { ControlContext } from '../context.ts'

export interface HostCall {
  method: string
  path: string
  query?: Record<string, string | readonly string[] | undefined>
  body?: unknown
  timeoutMs?: number
  /** The lease nonce that the caller showed. MCH-55. */
  nonce?: string | undefined
  /** Who asks, for the event. MCH-15. */
  source?: 'user' | 'proxy' | 'flyd'
  /** Who will own a lease that this call takes. */
  owner?: string
  signal?: AbortSignal
}

/** Where one host is: its id and the address written down when something was placed there. */
export interface HostRef {
  host_id: string
  host_api: string
}

/** A host that does not answer a plain call in this time is treated as unreachable. */
export const hostCallTimeoutMs = 10_000

function toRequest(ctx: ControlContext, call: HostCall): HttpRequest {
  const query = new URLSearchParams()
  for (const [name, value] of Object.entries(call.query ?? {})) {
    for (const one of Array.isArray(value) ? value : [value]) {
      if (one !== undefined) query.append(name, one)
    }
  }
  const text = query.toString()
  const timeoutMs = call.timeoutMs ?? hostCallTimeoutMs
  // Waits and streams must not use up the pool, and what changes something must not meet a stale connection.
  const ownConnection = call.method !== 'GET' || timeoutMs === 0 || timeoutMs > hostCallTimeoutMs
  return {
    method: call.method,
    path: text === '' ? call.path : `${call.path}?${text}`,
    timeoutMs,
    ownConnection,
    headers: {
      authorization: `Bearer ${ctx.clusterKey}`,
      'x-hangar-source': call.source ?? 'user',
      ...(call.nonce ? { [leaseNonceHeader]: call.nonce } : {}),
      ...(call.owner ? { 'x-hangar-owner': encodeURIComponent(call.owner) } : {}),
    },
    ...(call.body === undefined ? {} : { body: call.body }),
    ...(call.signal ? { signal: call.signal } : {}),
  }
}

/**
 * One JSON call to a host. Throws the host's own Fault, or `host_unreachable` when the host did not answer: then nobody
 * knows whether it acted.
 */
export async function callHost<T>(ctx: ControlContext, host: HostRef, call: HostCall): Promise<T> {
  const target = ctx.hosts.apiOf(host.host_id, host.host_api)
  const request = toRequest(ctx, call)
  try {
    return await callJson<T>(target, request)
  } catch (error) {
    if (!isStale(error, request)) throw unreachable(error, host.host_id, call)
  }
  try {
    return await callJson<T>(target, { ...request, ownConnection: true })
  } catch (error) {
    throw unreachable(error, host.host_id, call)
  }
}

/** A call whose answer is read as a stream. */
export async function streamHost(
  ctx: ControlContext,
  host: HostRef,
  call: HostCall,
): Promise<HttpAnswer> {
  const target = ctx.hosts.apiOf(host.host_id, host.host_api)
  try {
    return await httpRequest(target, toRequest(ctx, call))
  } catch (error) {
    throw unreachable(error, host.host_id, call)
  }
}

/** A read on a pooled connection that the host closed, as when it was just restarted: worth a second try. */
function isStale(error: unknown, request: HttpRequest): boolean {
  const code = (error as NodeJS.ErrnoException).code ?? ''
  return !request.ownConnection && ['ECONNRESET', 'EPIPE'].includes(code)
}

function unreachable(error: unknown, host: string, call: HostCall): unknown {
  if (call.signal?.aborted) return error
  if (isFault(error) && error.code !== 'timeout') return error
  // A timeout told by the host itself is about the machine; ours names the target.
  if (isFault(error, 'timeout') && !error.message.includes('got no answer from')) return error
  return new Fault(
    'host_unreachable',
    `host ${host} does not answer (${messageOf(error)}); its machines keep running, try again when it is back`,
    { cause: error },
  )
}

/** What a host says of itself. */
export async function askHost(
  ctx: ControlContext,
  host: HostRef,
  timeoutMs: number,
): Promise<HostInfo> {
  const info = hostInfoSchema.parse(
    await callHost<unknown>(ctx, host, {
      method: 'GET',
      path: '/v1/host',
      timeoutMs,
      source: 'flyd',
    }),
  )
  const known = ctx.hosts.get(host.host_id)?.row
  if (known) {
    const { capacity, used } = info
    ctx.hosts.note({ ...known, capacity, used, at: ctx.clock.now() })
  }
  return info
}

/** The hosts' newest rows for placement. Those that the bus is silent about are asked directly, all at once. */
export async function freshHosts(ctx: ControlContext): Promise<HostRow[]> {
  await Promise.all(
    ctx.hosts.list().map(async ({ row }) => {
      if (ctx.hosts.reachable(row.host)) return
      try {
        await askHost(ctx, { host_id: row.host, host_api: row.api }, 1_500)
      } catch (error) {
        ctx.log.debug({ host: row.host, error: messageOf(error) }, 'host is silent')
      }
    }),
  )
  return ctx.hosts.list().map(({ row }) => row)
}
