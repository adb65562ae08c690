import http from 'node:http'
import https from 'node:https'
import type { Readable } from 'node:stream'
import { Fault, faultCodes, type FaultCode } from '#core/fault.ts'

/** Where an HTTP server listens: `unix:/path`, `http://address:port` or `https://name:port`. */
export type HttpTarget = string

export interface HttpRequest {
  method: string
  path: string
  headers?: Record<string, string>
  /** Sent as JSON unless it is text, bytes or a stream. */
  body?: unknown
  timeoutMs?: number
  signal?: AbortSignal
  /**
   * A connection for this request alone: it neither waits for one of the pool nor holds one from others while it waits,
   * and never meets a pooled one that the server has just closed.
   */
  ownConnection?: boolean
}

export interface HttpAnswer {
  status: number
  headers: http.IncomingHttpHeaders
  body: Readable
}

// Keep-alive, so that a chatty pair of roles does not open a connection per call.
const agent = new http.Agent({ keepAlive: true, maxSockets: 64 })
const secureAgent = new https.Agent({ keepAlive: true, maxSockets: 64 })

/** One request; resolves when the head of the answer is there. Connection errors reject as they are. */
export function httpRequest(target: HttpTarget, request: HttpRequest): Promise<HttpAnswer> {
  const { body } = request
  const streamed = body !== undefined && typeof (body as Readable).pipe === 'function'
  const raw = typeof body === 'string' || Buffer.isBuffer(body)
  const payload =
    body === undefined || streamed
      ? undefined
      : raw
        ? (body as string | Buffer)
        : JSON.stringify(body)
  const headers: Record<string, string> = { ...request.headers }
  if (payload !== undefined) {
    headers['content-type'] ??= raw ? 'application/octet-stream' : 'application/json'
    headers['content-length'] = String(Buffer.byteLength(payload))
  }
  const secure = target.startsWith('https:')
  const where = target.startsWith('unix:')
    ? { socketPath: target.slice(5) }
    : { hostname: new URL(target).hostname, port: new URL(target).port || (secure ? 443 : 80) }
  return new Promise((resolve, reject) => {
    const outgoing = (secure ? https : http).request({
      ...where,
      method: request.method,
      path: request.path,
      headers,
      agent: request.ownConnection ? false : secure ? secureAgent : agent,
      ...(request.signal ? { signal: request.signal } : {}),
    })
    if (request.timeoutMs) {
      outgoing.setTimeout(request.timeoutMs, () =>
        outgoing.destroy(
          new Fault(
            'timeout',
            `${request.method} ${request.path} got no answer from ${target} in ${request.timeoutMs} ms`,
          ),
        ),
      )
    }
    outgoing.on('error', reject)
    outgoing.on('response', (incoming) =>
      resolve({ status: incoming.statusCode ?? 0, headers: incoming.headers, body: incoming }),
    )
    if (streamed) (body as Readable).on('error', (error) => outgoing.destroy(error)).pipe(outgoing)
    else outgoing.end(payload)
  })
}

export async function readBody(body: Readable, bytesMax: number): Promise<Buffer> {
  const chunks: Buffer[] = []
  let size = 0
  for await (const chunk of body) {
    size += (chunk as Buffer).length
    if (size > bytesMax) {
      body.destroy()
      throw new Fault('too_large', `the body is larger than the limit of ${bytesMax} bytes`)
    }
    chunks.push(chunk as Buffer)
  }
  return Buffer.concat(chunks)
}

/** A call and the whole answer. An error answer of our own roles (`{error, status}`) comes back as the Fault it was. */
export async function callBytes(target: HttpTarget, request: HttpRequest): Promise<Buffer> {
  const answer = await httpRequest(target, request)
  const bytes = await readBody(answer.body, 64 * 1024 * 1024)
  if (answer.status < 400) return bytes
  const what = `${request.method} ${request.path}`
  throw faultFromAnswer(answer.status, bytes.toString('utf8'), what)
}

/** The same for an answer of JSON. */
export async function callJson<T>(target: HttpTarget, request: HttpRequest): Promise<T> {
  const text = (await callBytes(target, request)).toString('utf8')
  return (text === '' ? undefined : JSON.parse(text)) as T
}

export function faultFromAnswer(status: number, text: string, what: string): Fault {
  let error = text.slice(0, 2000) || `${what} answered ${status}`
  let code: FaultCode = status === 404 ? 'not_found' : status < 500 ? 'bad_request' : 'internal'
  try {
    const body = JSON.parse(text) as { error?: unknown; status?: unknown; details?: unknown }
    if (typeof body.error === 'string') error = body.error
    if (faultCodes.includes(body.status as FaultCode)) code = body.status as FaultCode
  } catch {
    // Not JSON: the text is the message.
  }
  return new Fault(code, error)
}
