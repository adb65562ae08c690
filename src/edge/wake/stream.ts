import http from 'node:http'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { addressOf } from '../proxy/reconcile.ts'
import type { Member } from '../proxy/routes.ts'

/**
 * Carries one request to a woken machine and its answer back: for requests that HAProxy cannot send again because they
 * have a body or may change something. Bodies are piped with back-pressure, never gathered.
 */
export interface Streams {
  carry(member: Member, request: IncomingMessage, answer: ServerResponse): Promise<void>
  /** Requests in flight to a machine through here. HAProxy does not see them. */
  sessions(machine: string): number
  /** Requests carried to a machine so far. */
  total(machine: string): number
}

/** Meant for one connection, not for the message (RFC 9110, 7.6.1). Node writes its own. */
const hopByHop = new Set([
  'connection',
  'keep-alive',
  'proxy-connection',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
])
const idleMs = 600_000

export function openStreams(): Streams {
  const inFlight = new Map<string, number>()
  const totals = new Map<string, number>()
  const count = (machine: string, by: 1 | -1) => {
    const now = (inFlight.get(machine) ?? 0) + by
    if (now === 0) inFlight.delete(machine)
    else inFlight.set(machine, now)
  }
  return {
    sessions: (machine) => inFlight.get(machine) ?? 0,
    total: (machine) => totals.get(machine) ?? 0,
    async carry(member, request, answer) {
      totals.set(member.row.id, (totals.get(member.row.id) ?? 0) + 1)
      count(member.row.id, 1)
      try {
        await pass(member, request, answer)
      } finally {
        count(member.row.id, -1)
      }
    },
  }
}

function pass(member: Member, request: IncomingMessage, answer: ServerResponse): Promise<void> {
  const address = addressOf(member)
  const at = address.lastIndexOf(':')
  return new Promise((resolve) => {
    const outgoing = http.request({
      host: address.slice(0, at),
      port: Number(address.slice(at + 1)),
      method: request.method ?? 'GET',
      path: request.url ?? '/',
      headers: endToEnd(request.rawHeaders),
      setDefaultHeaders: false,
      agent: false,
    })
    outgoing.setTimeout(idleMs, () => outgoing.destroy(new Error('idle for too long')))
    outgoing.on('response', (incoming) => {
      answer.writeHead(incoming.statusCode ?? 502, endToEnd(incoming.rawHeaders))
      incoming.pipe(answer)
      // An answer cut short must look cut short to the client.
      incoming.on('error', () => answer.destroy())
    })
    outgoing.on('error', (error) => {
      if (answer.headersSent) return answer.destroy()
      answer.writeHead(502, { 'content-type': 'application/json' })
      answer.end(
        JSON.stringify({
          error: `machine ${member.row.id} broke off the request at ${address}: ${error.message}; see: hangar logs -a ${member.row.app}`,
          status: 'internal',
          code: 'PU02',
        }),
      )
      return undefined
    })
    answer.on('close', () => {
      outgoing.destroy()
      resolve()
    })
    request.pipe(outgoing)
  })
}

/** Name, value, name, value, without what belongs to one connection; a body of unknown length stays chunked. */
function endToEnd(rawHeaders: readonly string[]): string[] {
  const kept: string[] = []
  for (let i = 0; i + 1 < rawHeaders.length; i += 2) {
    const name = rawHeaders[i]!.toLowerCase()
    if (!hopByHop.has(name)) kept.push(rawHeaders[i]!, rawHeaders[i + 1]!)
    else if (name === 'transfer-encoding') kept.push('Transfer-Encoding', 'chunked')
  }
  return kept
}
