import { createHash, randomBytes } from 'node:crypto'
import { EventEmitter, on } from 'node:events'
import http from 'node:http'
import { hostname } from 'node:os'
import { createInterface } from 'node:readline'
import { Fault, isFault } from '#core/fault.ts'
import { part, type Api } from './api.ts'
import { complain, say, type Io } from './io.ts'

/** As long as the server keeps a login. */
const waitMs = 15 * 60_000

interface Session {
  id: string
  auth_url: string
  access_token?: string
}

/**
 * Logs in by the page of the cloud: a person allows it there, and the code comes back over the loopback or is pasted.
 * Only who holds the verifier can use the code. Resolves with the token. Faults: `timeout`, those of the server.
 */
export async function logIn(io: Io, api: Api): Promise<string> {
  const verifier = randomBytes(32).toString('base64url')
  const state = randomBytes(16).toString('base64url')
  const codes = new EventEmitter()
  const signal = AbortSignal.any([io.signal, AbortSignal.timeout(waitMs)])
  // Listening from here on, so that nothing typed early is lost.
  const typed = on(codes, 'code', { signal })
  const loopback = await listen(codes, state)
  const pasted = createInterface({ input: io.stdin })
  pasted.on('line', (line) => line.trim() !== '' && codes.emit('code', line.trim()))
  try {
    const session = await api.post<Session>('/api/v1/cli_sessions', {
      name: hostname().slice(0, 200),
      target: 'auth',
      code_challenge: createHash('sha256').update(verifier).digest('base64url'),
      code_challenge_method: 'S256',
      state,
      ...(loopback ? { redirect_port: loopback.port } : {}),
    })
    say(io, `Open this address in a browser and allow the login:\n\n  ${session.auth_url}\n`)
    say(io, 'Waiting. Where the page shows a code, paste it here.')
    return await redeem(io, api, { session, verifier, typed })
  } catch (error) {
    if (!signal.aborted || io.signal.aborted) throw error
    throw new Fault('timeout', 'nobody allowed the login for 15 minutes; start it again')
  } finally {
    pasted.close()
    loopback?.close()
  }
}

async function redeem(
  io: Io,
  api: Api,
  login: { session: Session; verifier: string; typed: AsyncIterable<unknown[]> },
): Promise<string> {
  const path = `/api/v1/cli_sessions/${part(login.session.id)}/redeem`
  for await (const [code] of login.typed) {
    try {
      const body = { code, code_verifier: login.verifier }
      const { access_token: token } = await api.post<Session>(path, body)
      if (token) return token
    } catch (error) {
      if (!isFault(error, 'invalid')) throw error
      complain(io, `That did not work: ${error.message}`)
    }
  }
  throw new Fault('internal', 'the login ended without a token; start it again')
}

/** Takes the code from the browser's redirect; undefined where no port can be had, and the code must be pasted. */
async function listen(
  codes: EventEmitter,
  state: string,
): Promise<{ port: number; close(): void } | undefined> {
  const server = http.createServer((request, response) => {
    const url = new URL(request.url ?? '/', 'http://127.0.0.1')
    const code = url.searchParams.get('code')
    const ours = url.pathname === '/callback' && url.searchParams.get('state') === state && code
    response.writeHead(ours ? 200 : 400, {
      'content-type': 'text/plain; charset=utf-8',
      connection: 'close',
    })
    response.end(ours ? 'Logged in. You can close this page.\n' : 'This is no answer to a login.\n')
    if (ours) codes.emit('code', code)
  })
  const listening = await new Promise<boolean>((resolve) => {
    server.once('error', () => resolve(false))
    server.listen(0, '127.0.0.1', () => resolve(true))
  })
  const address = server.address()
  if (!listening || !address || typeof address === 'string') return undefined
  return { port: address.port, close: () => server.close() }
}
