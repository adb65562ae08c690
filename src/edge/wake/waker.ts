import http from 'node:http'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { systemClock } from '#core/clock.ts'
import { messageOf } from '#core/fault.ts'
import { limits } from '#core/limits.ts'
import { removeFile } from '#sys/files.ts'
import type { Logger } from '#sys/log.ts'
import { replayHeader, replayStatus } from '../proxy/config.ts'
import type { Router } from '../proxy/router.ts'
import type { Member, Pool } from '../proxy/routes.ts'
import type { RouteTable } from '../proxy/route-table.ts'
import { choose } from './choose.ts'
import { loadOf, usableMembers } from './load.ts'
import type { Starter } from './starter.ts'
import type { Streams } from './stream.ts'

/**
 * The server that HAProxy falls back on when a slot has no machine: it holds the request, has a machine started, and
 * answers so that HAProxy sends the request again, to the machine. Only what cannot be sent again is carried here.
 */
export interface WakerOptions {
  table: RouteTable
  router: Router
  starter: Starter
  streams: Streams
  /** A listening descriptor that outlives this process; otherwise `socketPath` is bound. */
  fd: number | undefined
  socketPath: string
  httpsPort: number
  holdMs: number
  /** Resolves when the roster's rows are known: before that no app is. */
  known: Promise<void>
  log: Logger
}

export interface Waker {
  held(poolKey: string): number
  close(): Promise<void>
}

type Outcome =
  | { kind: 'ready' }
  | { kind: 'gone' }
  | { kind: 'failed'; code: string; message: string }

const lookEveryMs = 50

export async function openWaker(options: WakerOptions): Promise<Waker> {
  const { table, router, log } = options
  const heldOf = new Map<string, number>()

  async function take(request: IncomingMessage, answer: ServerResponse): Promise<void> {
    const door =
      Number(request.headers['fly-forwarded-port']) === options.httpsPort ? 'https' : 'http'
    const host = (request.headers.host ?? '').replace(/:\d+$/, '')
    await options.known
    const pool = table.poolOfHost(host, door)
    if (!pool) return refuse(answer, 'PR02', `no app answers at ${host}; see: hangar apps list`)
    const held = heldOf.get(pool.key) ?? 0
    if (held >= limits.heldRequestsPerAppMax) {
      return refuse(
        answer,
        'PR03',
        `${held} requests already wait for a machine of ${pool.app}, which is the limit; try again later`,
      )
    }
    heldOf.set(pool.key, held + 1)
    let outcome: Outcome
    try {
      outcome = await machineFor(pool.key, () => answer.closed || answer.destroyed)
    } finally {
      const left = (heldOf.get(pool.key) ?? 1) - 1
      if (left === 0) heldOf.delete(pool.key)
      else heldOf.set(pool.key, left)
    }
    if (outcome.kind === 'failed') return refuse(answer, outcome.code, outcome.message)
    if (outcome.kind === 'gone') return
    if (isReplayable(request)) return replay(answer)
    const member = leastLoaded(pool.key)
    if (!member) return refuse(answer, 'PR03', `the machines of ${pool.app} went away; try again`)
    await options.streams.carry(member, request, answer)
  }

  /** Ends when HAProxy has a server for the pool, or when there is no hope of one. */
  async function machineFor(poolKey: string, gone: () => boolean): Promise<Outcome> {
    const deadline = systemClock.now() + options.holdMs
    const failed = new Set<string>()
    let lastFailure: string | undefined
    if (router.hasServer(poolKey)) await lookOnce(poolKey)
    while (systemClock.now() < deadline) {
      if (gone()) return { kind: 'gone' }
      const pool = table.pool(poolKey)
      if (!pool) return { kind: 'failed', code: 'PR02', message: 'the app was removed' }
      if (router.hasServer(poolKey)) return { kind: 'ready' }
      const choice = choose(pool, {
        now: systemClock.now(),
        failed,
        refusingMs: (member) => router.refusingMs(member),
      })
      if (choice.do === 'refuse') {
        const message = lastFailure ?? choice.message
        return { kind: 'failed', code: lastFailure ? 'PM07' : choice.code, message }
      }
      if (choice.do === 'start') {
        try {
          await options.starter.wake(choice.machine)
        } catch (error) {
          failed.add(choice.machine.id)
          lastFailure = `machine ${choice.machine.id} of ${pool.app} could not be started: ${messageOf(error)}`
          log.warn(lastFailure)
        }
        continue
      }
      await router.changed(Math.min(1_000, deadline - systemClock.now()))
    }
    return { kind: 'failed', ...expired(poolKey) }
  }

  /** Many requests fall on the waker at once when a server is marked down: HAProxy is asked once for all of them. */
  const looking = new Map<string, Promise<void>>()
  function lookOnce(poolKey: string): Promise<void> {
    const shared = looking.get(poolKey)
    if (shared) return shared
    const mine = router
      .look(poolKey)
      .then(() => systemClock.sleep(router.hasServer(poolKey) ? lookEveryMs : 0))
      .finally(() => looking.delete(poolKey))
    looking.set(poolKey, mine)
    return mine
  }

  function expired(poolKey: string): { code: string; message: string } {
    const pool = table.pool(poolKey)
    for (const member of pool?.members.values() ?? []) {
      if (router.refusingMs(member) !== undefined) {
        return {
          code: 'PC01',
          message: `machine ${member.row.id} of ${pool?.app} is started but refuses connections on port ${member.internalPort}; the app must listen on 0.0.0.0:${member.internalPort} (internal_port in fly.toml)`,
        }
      }
    }
    return {
      code: 'PR03',
      message: `no machine of ${pool?.app} was ready within ${options.holdMs} ms: ${statesOf(pool)}; see: hangar status -a ${pool?.app} and hangar logs -a ${pool?.app}`,
    }
  }

  function leastLoaded(poolKey: string): Member | undefined {
    return usableMembers(table.pool(poolKey))
      .filter((member) => router.refusingMs(member) === undefined)
      .sort((a, b) => loadOf(a, options) - loadOf(b, options))[0]
  }

  const server = http.createServer(
    { requestTimeout: 0, headersTimeout: 60_000 },
    (request, answer) => {
      take(request, answer).catch((error: unknown) => {
        log.error({ error: messageOf(error) }, 'a held request failed')
        if (answer.headersSent) answer.destroy()
        else refuse(answer, 'PR03', messageOf(error))
      })
    },
  )
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

function listen(server: http.Server, { fd, socketPath }: WakerOptions): Promise<void> {
  if (fd === undefined) removeFile(socketPath)
  return new Promise((resolve, reject) => {
    server.once('error', reject)
    server.listen(fd === undefined ? { path: socketPath, backlog: 4096 } : { fd }, () => resolve())
  })
}

/** Nothing was done with the request yet, so any method could be; but HAProxy keeps no copy of a body it may not resend. */
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

function statesOf(pool: Pool | undefined): string {
  const members = [...(pool?.members.values() ?? [])]
  return members
    .map(({ row }) => `${row.id} is ${row.state}${row.ready ? '' : ', not ready'}`)
    .join('; ')
}
