import type { IncomingMessage, Server, ServerOptions } from 'node:http'
import { Readable, type Duplex } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { WebSocket, WebSocketServer } from 'ws'
import { Fault } from '#core/fault.ts'
import { faultFromAnswer, readBody, type HttpTarget } from './http-client.ts'

export type { WebSocket }

const messageBytesMax = 1024 * 1024
const answerBytesMax = 64 * 1024
const heartbeatMs = 15_000

/** What a handler of requests finds in its bindings: the request as Node has it, and for one that asks for a WebSocket this. */
export interface UpgradeBindings {
  incoming: IncomingMessage
  /** Undefined where the request asks for none. The socket is paused: `resume` it once its messages are listened to. */
  accept?: () => Promise<WebSocket>
}

/** For the making of a server: only who asks for a WebSocket is upgraded, all else (h2c) is answered as without that wish. */
export const upgradeOptions: ServerOptions = {
  shouldUpgradeCallback: (request) =>
    request.method === 'GET' && request.headers.upgrade?.toLowerCase() === 'websocket',
}

/** Requests for WebSockets go through the same handler as all others: it accepts, or answers as it answers those. */
export function acceptWebSockets(
  server: Server,
  fetch: (request: Request, bindings: object) => Response | Promise<Response>,
): void {
  const sockets = new WebSocketServer({ noServer: true, maxPayload: messageBytesMax })
  const answered = new Set<Duplex>()
  server.on('upgrade', (incoming: IncomingMessage, socket: Duplex, head: Buffer) => {
    answered.add(socket)
    socket.on('error', () => socket.destroy())
    socket.once('close', () => answered.delete(socket))
    const request = asRequest(incoming)
    if (!request) {
      socket.once('finish', () => socket.destroy())
      socket.end('HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n')
      return
    }
    let accepted = false
    const accept = () => {
      accepted = true
      answered.delete(socket)
      return upgrade(sockets, { incoming, socket, head })
    }
    const bindings: UpgradeBindings = { incoming, accept }
    Promise.try(fetch, request, bindings)
      .then((response) => (accepted ? undefined : writeResponse(socket, response)))
      .catch(() => socket.destroy())
  })
  // Node counts an upgraded connection as none of its own, and yet waits for it.
  const closeAll = server.closeAllConnections.bind(server)
  server.closeAllConnections = () => {
    for (const socket of sockets.clients) socket.terminate()
    for (const socket of answered) socket.destroy()
    closeAll()
  }
}

function upgrade(
  sockets: WebSocketServer,
  from: { incoming: IncomingMessage; socket: Duplex; head: Buffer },
): Promise<WebSocket> {
  return new Promise((resolve, reject) => {
    const gone = () =>
      reject(new Fault('bad_request', 'the client left before its WebSocket began'))
    if (from.socket.destroyed) return gone()
    from.socket.once('close', gone)
    sockets.handleUpgrade(from.incoming, from.socket, from.head, (socket) => resolve(begun(socket)))
  })
}

/** Undefined where the first line of it names no address of ours, whatever else Node takes there. */
function asRequest(incoming: IncomingMessage): Request | undefined {
  const url = URL.parse(`http://localhost${incoming.url ?? '/'}`)
  if (!incoming.url?.startsWith('/') || !url) return undefined
  const headers = new Headers()
  for (const [name, value] of Object.entries(incoming.headersDistinct)) {
    for (const one of value ?? []) headers.append(name, one)
  }
  return new Request(url, { headers })
}

/** However long the answer is, it is read no faster than its reader takes it, and no further than to where that leaves. */
async function writeResponse(socket: Duplex, response: Response): Promise<void> {
  const headers = [...response.headers, ['connection', 'close']]
  const head = headers.map((pair) => `${pair.join(': ')}\r\n`).join('')
  // A client that keeps its half of the connection open is not waited for.
  socket.once('finish', () => socket.destroy())
  socket.write(`HTTP/1.1 ${response.status} ${response.statusText || 'Refused'}\r\n${head}\r\n`)
  if (!response.body) return void socket.end()
  // What else it sends is read by nobody, but that it leaves is heard only by reading.
  socket.resume()
  await pipeline(Readable.fromWeb(response.body), socket)
}

/**
 * Opens a WebSocket; it is paused, as one that was accepted. Where the other side answers with an error, that is thrown as the
 * Fault it was; errors of the connection reject as they are.
 */
export function openWebSocket(
  target: HttpTarget,
  options: {
    path: string
    headers: Record<string, string>
    signal?: AbortSignal
    timeoutMs: number
  },
): Promise<WebSocket> {
  const { path, headers, signal, timeoutMs } = options
  const url = target.startsWith('unix:')
    ? `ws+unix:${target.slice('unix:'.length)}:${path}`
    : `${target.replace(/^http/, 'ws')}${path}`
  const socket = new WebSocket(url, {
    headers,
    handshakeTimeout: timeoutMs,
    maxPayload: messageBytesMax,
    perMessageDeflate: false,
  })
  const leave = () => socket.terminate()
  signal?.addEventListener('abort', leave, { once: true })
  socket.once('close', () => signal?.removeEventListener('abort', leave))
  return new Promise((resolve, reject) => {
    socket.once('open', () => resolve(begun(socket)))
    socket.once('error', reject)
    socket.once('unexpected-response', (_request, answer) => {
      readBody(answer, answerBytesMax)
        .then((body) => {
          throw faultFromAnswer(answer.statusCode ?? 0, body.toString('utf8'), `GET ${path}`)
        })
        .catch(reject)
        .finally(leave)
    })
    if (signal?.aborted) leave()
  })
}

/** Paused, so that nothing is heard by nobody; a side that vanished without a word is found by its silence. */
function begun(socket: WebSocket): WebSocket {
  socket.pause()
  socket.on('error', () => {}) // The close that follows is what is acted on.
  let answered = true
  socket.on('pong', () => (answered = true))
  const timer = setInterval(() => {
    // Of a paused socket no answer is read; one that is gone refuses the ping itself.
    if (!answered && !socket.isPaused) return socket.terminate()
    answered = false
    socket.ping()
  }, heartbeatMs)
  timer.unref()
  socket.once('close', () => clearInterval(timer))
  return socket
}

/** Resolves when it is on its way, rejects when it cannot be any more: who waits sends no faster than the other side takes. */
export function sendMessage(socket: WebSocket, data: Buffer | string): Promise<void> {
  return new Promise((resolve, reject) => {
    const binary = typeof data !== 'string'
    socket.send(data, { binary }, (error) => (error ? reject(error) : resolve()))
  })
}

/** What is behind a door that speaks WebSockets only. */
export function requireUpgrade(bindings: unknown): () => Promise<WebSocket> {
  const { accept } = (bindings ?? {}) as Partial<UpgradeBindings>
  if (accept) return accept
  throw new Fault('bad_request', 'this address is for WebSockets; ask for an upgrade')
}

/** Hands each message of one on to the other, no faster than it takes them, and the end of one too. */
export function joinWebSockets(one: WebSocket, other: WebSocket): void {
  const handOn = (from: WebSocket, to: WebSocket) => {
    let waiting = 0
    from.on('message', (data: Buffer, binary) => {
      waiting++
      from.pause()
      to.send(data, { binary }, () => {
        if (--waiting === 0) from.resume()
      })
    })
    from.on('close', (code, reason) => {
      // What means that no word was said cannot be said.
      if (code === 1005 || code === 1006) to.close(1011, 'the connection behind broke')
      else to.close(code, reason)
    })
    if (from.readyState !== WebSocket.OPEN) to.close(1011, 'the connection behind broke')
    from.resume()
  }
  handOn(one, other)
  handOn(other, one)
}
