import http from 'node:http'
import https from 'node:https'
import net from 'node:net'
import type { PlannedCheck } from './check-plan.ts'

export interface ProbeResult {
  ok: boolean
  /** What the checked port said, for people. */
  output: string
}

const outputCharsMax = 500

/** Whether something accepts connections there; never throws. */
export function probeTcp(address: string, port: number, timeoutMs: number): Promise<ProbeResult> {
  return new Promise((resolve) => {
    const socket = net.connect({ host: address, port })
    const finish = (ok: boolean, output: string) => {
      socket.destroy()
      resolve({ ok, output })
    }
    socket.setTimeout(timeoutMs, () =>
      finish(false, `port ${port} did not accept a connection in ${timeoutMs} ms`),
    )
    socket.once('connect', () => finish(true, `port ${port} accepts connections`))
    socket.once('error', (error: NodeJS.ErrnoException) =>
      finish(
        false,
        error.code === 'ECONNREFUSED' ? `connection to port ${port} was refused` : error.message,
      ),
    )
  })
}

/** CHK-4: 2xx passes; redirects are not followed and fail. Never throws. */
export function probeHttp(address: string, check: PlannedCheck): Promise<ProbeResult> {
  return new Promise((resolve) => {
    const headers: Record<string, string[]> = {}
    for (const { name, values } of check.headers) headers[name] = values
    const options = {
      host: address,
      port: check.port,
      method: check.method,
      path: check.path,
      headers,
      // A connection of its own: a pooled one would prove nothing about accepting.
      agent: false as const,
      signal: AbortSignal.timeout(check.timeoutMs),
    }
    const request =
      check.protocol === 'https'
        ? https.request({
            ...options,
            rejectUnauthorized: !check.tlsSkipVerify,
            servername: check.tlsServerName,
          })
        : http.request(options)
    request.on('error', (error: NodeJS.ErrnoException) => {
      const timedOut = options.signal.aborted
      const refused = error.code === 'ECONNREFUSED'
      const output = timedOut
        ? `${check.method} ${check.path} got no answer in ${check.timeoutMs} ms`
        : refused
          ? `connection to port ${check.port} was refused`
          : error.message
      resolve({ ok: false, output })
    })
    request.on('response', (answer) => {
      const status = answer.statusCode ?? 0
      let body = ''
      answer.setEncoding('utf8')
      answer.on('data', (chunk: string) => {
        if (body.length < outputCharsMax) body += chunk
        else answer.destroy()
      })
      answer.on('close', () => {
        const ok = status >= 200 && status < 300
        const text = body.slice(0, outputCharsMax).trim()
        resolve({ ok, output: `status ${status}${text ? `: ${text}` : ''}` })
      })
    })
    request.end()
  })
}

export function probe(address: string, check: PlannedCheck): Promise<ProbeResult> {
  return check.type === 'http'
    ? probeHttp(address, check)
    : probeTcp(address, check.port, check.timeoutMs)
}
