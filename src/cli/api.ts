import type { Readable } from 'node:stream'
import { Fault, isFault } from '#core/fault.ts'
import { faultFromAnswer, httpRequest, readBody, type HttpAnswer } from '#sys/http-client.ts'
import { openWebSocket, type WebSocket } from '#sys/web-socket.ts'
import type { Place } from './place.ts'

/** The public API as the CLI speaks it. Errors of the server come back as the Fault they were. */
export interface Api {
  /** The base address, for messages. */
  readonly at: string
  get<T>(path: string): Promise<T>
  /** `undefined` where the server says 404. */
  find<T>(path: string): Promise<T | undefined>
  post<T>(path: string, body?: unknown, headers?: Record<string, string>): Promise<T>
  put<T>(path: string, body: unknown): Promise<T>
  del<T>(path: string, headers?: Record<string, string>): Promise<T>
  /** JSON lines as they come; ends with the body. A body cut short is a Fault of code host_unreachable. */
  lines<T>(path: string): AsyncGenerator<T>
  /** Streams a body up and reads JSON lines back. */
  upload<T>(path: string, body: Readable, type: string): AsyncGenerator<T>
  /** A WebSocket, paused. */
  socket(path: string): Promise<WebSocket>
}

// A wait of the Machines API lasts up to 60 s before it says anything.
const answerTimeoutMs = 90_000
const jsonBytesMax = 64 * 1024 * 1024
const lineBytesMax = 1024 * 1024

interface Ask {
  method: string
  path: string
  body?: unknown
  headers?: Record<string, string>
  /** No limit on silence: a followed log may say nothing for hours. */
  patient?: boolean
}

export function connectApi(place: Place, signal: AbortSignal): Api {
  const ask = (request: Ask): Promise<HttpAnswer> => askServer(place, signal, request)
  const json = async <T>(request: Ask): Promise<T> => {
    const answer = await ask(request)
    const text = (await readBody(answer.body, jsonBytesMax)).toString('utf8')
    if (text.trim() === '') return undefined as T
    try {
      return JSON.parse(text) as T
    } catch (cause) {
      throw new Fault(
        'internal',
        `${request.method} ${request.path}: the answer from ${place.api} is no JSON; is it a Hangar cloud?`,
        { cause },
      )
    }
  }
  return {
    at: place.api,
    get: (path) => json({ method: 'GET', path }),
    find: async <T>(path: string) => {
      try {
        return await json<T>({ method: 'GET', path })
      } catch (error) {
        if (isFault(error, 'not_found')) return undefined
        throw error
      }
    },
    post: (path, body, headers = {}) => json({ method: 'POST', path, body, headers }),
    put: (path, body) => json({ method: 'PUT', path, body }),
    del: (path, headers = {}) => json({ method: 'DELETE', path, headers }),
    lines: async function* <T>(path: string) {
      yield* jsonLines<T>((await ask({ method: 'GET', path, patient: true })).body)
    },
    upload: async function* <T>(path: string, body: Readable, type: string) {
      const headers = { 'content-type': type }
      const answer = await ask({ method: 'PUT', path, body, headers, patient: true })
      yield* jsonLines<T>(answer.body)
    },
    socket: (path) => openSocket(place, signal, path),
  }
}

async function openSocket(place: Place, signal: AbortSignal, path: string): Promise<WebSocket> {
  const headers = { authorization: `Bearer ${place.token}` }
  try {
    return await openWebSocket(place.api, { path, headers, signal, timeoutMs: answerTimeoutMs })
  } catch (error) {
    if (signal.aborted) throw error
    throw isFault(error, 'unauthorized') ? refused(place, error) : translate(error, place)
  }
}

async function askServer(place: Place, signal: AbortSignal, request: Ask): Promise<HttpAnswer> {
  const { method, path, body, headers, patient } = request
  let answer: HttpAnswer
  try {
    answer = await httpRequest(place.api, {
      method,
      path,
      signal,
      // A person may think for a minute between two requests: a pooled connection would be dead by then.
      ownConnection: true,
      headers: { authorization: `Bearer ${place.token}`, ...headers },
      ...(body === undefined ? {} : { body }),
      ...(patient ? {} : { timeoutMs: answerTimeoutMs }),
    })
  } catch (error) {
    throw signal.aborted ? error : translate(error, place)
  }
  if (answer.status < 400) return answer
  const text = (await readBody(answer.body, jsonBytesMax)).toString('utf8')
  const fault = faultFromAnswer(answer.status, text, `${method} ${path}`)
  // The wait of a machine says "not yet" with a 408 alone.
  if (answer.status === 408) throw new Fault('wait_timeout', fault.message)
  throw answer.status === 401 ? refused(place, fault) : fault
}

const refused = (place: Place, fault: Fault): Fault =>
  new Fault(
    'unauthorized',
    `${place.api} refuses the access token (${fault.message}); check FLY_ACCESS_TOKEN, --access-token or $HANGAR_HOME/token`,
  )

const notThere = new Set(['ECONNREFUSED', 'ENOTFOUND', 'EHOSTUNREACH', 'ENETUNREACH', 'EAI_AGAIN'])
const cutOff = new Set(['ECONNRESET', 'EPIPE', 'ETIMEDOUT'])

function translate(error: unknown, place: Place): unknown {
  const code = (error as NodeJS.ErrnoException).code ?? ''
  if (/CERT|TLS|SIGNATURE/.test(code)) {
    return new Fault(
      'host_unreachable',
      `the certificate of ${place.api} is not trusted (${code}); name its authority with NODE_EXTRA_CA_CERTS=FILE`,
      { cause: error },
    )
  }
  if (notThere.has(code)) {
    return new Fault(
      'host_unreachable',
      `the cloud at ${place.api} does not answer; start it with: hangar up`,
      { cause: error },
    )
  }
  if (cutOff.has(code)) {
    return new Fault(
      'host_unreachable',
      `the cloud at ${place.api} closed the connection (${code}); try again, or see: hangar doctor`,
      { cause: error },
    )
  }
  return error
}

/** JSON lines of a stream. A line that is no JSON or is too long is a Fault. */
export async function* jsonLines<T>(body: Readable): AsyncGenerator<T> {
  let rest = ''
  body.setEncoding('utf8')
  try {
    for await (const chunk of body) {
      const lines = (rest + (chunk as string)).split('\n')
      rest = lines.pop() ?? ''
      if (rest.length > lineBytesMax) {
        throw new Fault('too_large', `a line of the answer is longer than ${lineBytesMax} bytes`)
      }
      for (const line of lines) if (line.trim() !== '') yield parseLine<T>(line)
    }
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? ''
    if (code !== 'ECONNRESET' && code !== 'EPIPE') throw error
    throw new Fault('host_unreachable', 'the connection to the cloud broke', { cause: error })
  }
  if (rest.trim() !== '') yield parseLine<T>(rest)
}

function parseLine<T>(line: string): T {
  try {
    return JSON.parse(line) as T
  } catch (cause) {
    throw new Fault('internal', `the cloud sent a line that is no JSON: ${line.slice(0, 200)}`, {
      cause,
    })
  }
}

/** A part of a path. */
export const part = encodeURIComponent
