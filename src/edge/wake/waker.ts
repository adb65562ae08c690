import http from 'node:http'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { messageOf } from '#core/fault.ts'
import { limits } from '#core/limits.ts'
import { replayHeader, replayStatus } from '../proxy/config.ts'
import type { Member } from '../proxy/routes.ts'
import { openHold, type HoldOptions, type Outcome } from './hold.ts'
import { loadOf, usableMembers } from './load.ts'
import type { Streams } from './stream.ts'

/**
 * The server that HAProxy falls back on when a slot has no machine: it holds the request, has a machine started, and
 * answers so that HAProxy sends the request again, to the machine. Only what cannot be sent again is carried here.
 */
export interface WakerOptions extends HoldOptions {
  streams: Streams
  /** A listening descriptor that outlives this process; otherwise `port` of 127.0.0.1 is bound. */
  fd: number | undefined
  port: number
  httpsPort: number
  /** Resolves when the roster's rows are known: before that no app is. */
  known: Promise<void>
}

export interface Waker {
  /** Requests that wait for the pool. */
  held(poolKey: string): number
  close(): Promise<void>
}

export async function openWaker(options: WakerOptions): Promise<Waker> {
  const { table, router, log } = options
  const machineFor = openHold(options)
  const heldOf = new Map<string, number>()

  async function hold(poolKey: string, gone: () => boolean): Promise<Outcome> {
    const held = heldOf.get(poolKey) ?? 0
    if (held >= limits.heldRequestsPerAppMax) {
      const message = `${held} requests already wait for a machine of this app, which is the limit; try again later`
      return { kind: 'failed', code: 'PR03', message }
    }
    heldOf.set(poolKey, held + 1)
    try {
      return await machineFor(poolKey, gone)
    } finally {
      const left = (heldOf.get(poolKey) ?? 1) - 1
      if (left === 0) heldOf.delete(poolKey)
      else heldOf.set(poolKey, left)
    }
  }

  async function take(request: IncomingMessage, answer: ServerResponse): Promise<void> {
    await options.known
    const port = Number(request.headers['fly-forwarded-port'])
    const host = (request.headers.host ?? '').replace(/:\d+$/, '')
    const pool = table.poolOfHost(host, port === options.httpsPort ? 'https' : 'http')
    if (!pool) return refuse(answer, 'PR02', `no app answers at ${host}; see: hangar apps list`)
    const outcome = await hold(pool.key, () => answer.closed || answer.destroyed)
    if (outcome.kind === 'gone') return
    if (outcome.kind === 'failed') return refuse(answer, outcome.code, outcome.message)
    if (isReplayable(request)) return replay(answer)
    const member = leastLoaded(pool.key)
    if (!member) return refuse(answer, 'PR03', `the machines of ${pool.app} went away; try again`)
    await options.streams.carry(member, request, answer)
  }

  function leastLoaded(poolKey: string): Member | undefined {
    return usableMembers(table.pool(poolKey))
      .filter((member) => router.refusingMs(member) === undefined)
      .sort((a, b) => loadOf(a, options) - loadOf(b, options))[0]
  }

  const timeouts = { requestTimeout: 0, headersTimeout: 60_000 }
  const server = http.createServer(timeouts, (request, answer) => {
    take(request, answer).catch((error: unknown) => {
      log.error({ error: messageOf(error) }, 'a held request failed')
      if (answer.headersSent) answer.destroy()
      else refuse(answer, 'PR03', messageOf(error))
    })
  })
  server.on('clientError', (_error, socket) => socket.destroy())
  await listen(server, options)
  return {
    held: (poolKey) => heldOf.get(poolKey) ?? 0,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve())
        server.closeAllConnections()
      }),
  }
}

function listen(server: http.Server, { fd, port }: WakerOptions): Promise<void> {
  const backlog = 4096
  return new Promise((resolve, reject) => {
    server.once('error', reject)
    server.listen(fd === undefined ? { host: '127.0.0.1', port, backlog } : { fd, backlog }, () => {
      resolve()
    })
  })
}

/**
 * Nothing was done with the request yet, so any could be sent again; but HAProxy keeps no copy of one that may change
 * something (config.ts), nor of a body that had not arrived whole.
 */
function isReplayable(request: IncomingMessage): boolean {
  const idempotent = ['GET', 'HEAD', 'OPTIONS', 'DELETE', 'TRACE'].includes(request.method ?? '')
  const length = Number(request.headers['content-length'] ?? 0)
  return idempotent && length === 0 && request.headers['transfer-encoding'] === undefined
}

function replay(answer: ServerResponse): void {
  answer.writeHead(replayStatus, {
    [replayHeader]: '1',
    'content-length': '0',
    connection: 'close',
  })
  answer.end()
}

function refuse(answer: ServerResponse, code: string, message: string): void {
  const body = JSON.stringify({ error: message, status: 'internal', code })
  answer.writeHead(503, {
    'content-type': 'application/json',
    'content-length': Buffer.byteLength(body),
    connection: 'close',
  })
  answer.end(body)
}
