import { Fault, isFault, messageOf } from '#core/fault.ts'
import { hostInfoSchema, type HostInfo } from '#spec/host-api.ts'
import { leaseNonceHeader } from '#spec/machine.ts'
import type { HostRow } from '#spec/roster.ts'
import { callBytes, httpRequest, type HttpAnswer, type HttpRequest } from '#sys/http-client.ts'
import { openWebSocket, type WebSocket } from '#sys/web-socket.ts'
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
  /**
   * May be given up as soon as the host is lost, because it changes nothing, comes again, or goes elsewhere then. True of
   * every GET and of the janitor's calls.
   */
  repeatable?: boolean
  signal?: AbortSignal
}

/** Where one host is: its id and the address written down when something was placed there. */
export interface HostRef {
  host_id: string
  host_api: string
}

/** A host that does not answer a plain call in this time is treated as unreachable. */
export const hostCallTimeoutMs = 10_000
/** What a user asked of a host that was lost meanwhile waits so much longer: it may only have paused. */
const lostPatienceMs = 6_000

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
 * knows whether it acted. A host that is lost is not called at all, and one that is lost meanwhile not waited for.
 */
export async function callHost<T>(ctx: ControlContext, host: HostRef, call: HostCall): Promise<T> {
  const text = (await callHostBytes(ctx, host, call)).toString('utf8')
  return (text === '' ? undefined : JSON.parse(text)) as T
}

/** The same without reading what the host answered. */
export async function callHostBytes(
  ctx: ControlContext,
  host: HostRef,
  call: HostCall,
): Promise<Buffer> {
  return await withPulse(ctx, host, call, async (target, request) => {
    try {
      return await callBytes(target, request)
    } catch (error) {
      if (!isStale(error, request)) throw error
    }
    return await callBytes(target, { ...request, ownConnection: true })
  })
}

/** A call whose answer is read as a stream; only its head is waited for here. */
export async function streamHost(
  ctx: ControlContext,
  host: HostRef,
  call: HostCall,
): Promise<HttpAnswer> {
  return await withPulse(ctx, host, call, httpRequest)
}

/** A WebSocket to a host, paused. What it answers instead is thrown as the Fault it was. */
export async function openHostSocket(
  ctx: ControlContext,
  host: HostRef,
  call: Pick<HostCall, 'path' | 'timeoutMs'>,
): Promise<WebSocket> {
  return await withPulse(ctx, host, { ...call, method: 'GET' }, (target, request) =>
    openWebSocket(target, {
      path: request.path,
      headers: request.headers ?? {},
      timeoutMs: request.timeoutMs ?? hostCallTimeoutMs,
    }),
  )
}

async function withPulse<T>(
  ctx: ControlContext,
  host: HostRef,
  call: HostCall,
  act: (target: string, request: HttpRequest) => Promise<T>,
): Promise<T> {
  const { pulse } = ctx.hosts
  const id = host.host_id
  if (pulse.lost(id)) throw unreachable(new Fault('timeout', silence(ctx, id)), id, call)
  const repeatable = call.repeatable ?? (call.method === 'GET' || call.source === 'flyd')
  const request = toRequest(ctx, call)
  const cut = new AbortController()
  const signals = [cut.signal, ...(call.signal ? [call.signal] : [])]
  const release = pulse.onLost(id, repeatable ? 0 : lostPatienceMs, () => cut.abort())
  try {
    const target = ctx.hosts.apiOf(id, host.host_api)
    return await act(target, { ...request, signal: AbortSignal.any(signals) })
  } catch (error) {
    if (cut.signal.aborted) throw unreachable(new Fault('timeout', silence(ctx, id)), id, call)
    throw unreachable(error, id, call)
  } finally {
    release()
  }
}

const silence = (ctx: ControlContext, id: string): string => {
  const ms = ctx.hosts.pulse.silentMs(id)
  // One that was never heard of since our start has no such time.
  const since = ms > 24 * 3_600_000 ? '' : ` for ${Math.round(ms / 1000)} s`
  return `got no answer from it${since}`
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

/**
 * The newest rows of the hosts that live, for placement: `at` is when we heard, by our clock. Those that the bus is silent
 * about are asked directly, all at once.
 */
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
  return ctx.hosts
    .list()
    .filter(({ row }) => !ctx.hosts.pulse.lost(row.host))
    .map(({ row, heardAt }) => ({ ...row, at: heardAt }))
}
