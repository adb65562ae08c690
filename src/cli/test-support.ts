import { mkdtempSync, rmSync } from 'node:fs'
import http from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { PassThrough, Readable, Writable } from 'node:stream'
import { main } from './index.ts'
import type { Io } from './io.ts'

/** What a request of the command line looked like to the server. */
export interface SeenRequest {
  method: string
  /** With the query. */
  path: string
  body: Buffer
  json: unknown
  authorization: string | undefined
}

export interface Answer {
  status?: number
  json?: unknown
  /** Sent as JSON lines. */
  lines?: unknown[]
  /** Breaks the connection after the lines. */
  cut?: boolean
}

type Handler = Answer | ((request: SeenRequest) => Answer)

/**
 * A server with the shapes of the API: `'GET /v1/apps/x'` → answer. A key without a query answers any query. An unknown
 * path is a 404 in the server's own shape. The real server is tested in test/.
 */
export async function startApi(routes: Record<string, Handler>) {
  const seen: SeenRequest[] = []
  const server = http.createServer((incoming, outgoing) => {
    const chunks: Buffer[] = []
    incoming.on('data', (chunk: Buffer) => chunks.push(chunk))
    incoming.on('end', () => {
      const request = seenRequest(incoming, Buffer.concat(chunks))
      seen.push(request)
      const route = `${request.method} ${request.path}`
      const handler = routes[route] ?? routes[route.split('?')[0] as string]
      const answer = typeof handler === 'function' ? handler(request) : handler
      reply(
        outgoing,
        answer ?? { status: 404, json: { error: `no ${route}`, status: 'not_found' } },
      )
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as { port: number }
  return {
    url: `http://127.0.0.1:${port}`,
    seen,
    asked: (route: string) => seen.filter(({ method, path }) => `${method} ${path}` === route),
    close: () => {
      server.closeAllConnections()
      server.close()
    },
  }
}
export type TestApi = Awaited<ReturnType<typeof startApi>>

function seenRequest(incoming: http.IncomingMessage, body: Buffer): SeenRequest {
  let json: unknown
  if (incoming.headers['content-type']?.includes('json')) json = JSON.parse(body.toString())
  return {
    method: incoming.method ?? '',
    path: incoming.url ?? '',
    body,
    json,
    authorization: incoming.headers.authorization,
  }
}

function reply(outgoing: http.ServerResponse, answer: Answer): void {
  outgoing.statusCode = answer.status ?? 200
  if (!answer.lines) {
    outgoing.setHeader('content-type', 'application/json')
    outgoing.end(answer.json === undefined ? '' : JSON.stringify(answer.json))
    return
  }
  outgoing.setHeader('content-type', 'application/x-ndjson')
  for (const line of answer.lines) outgoing.write(`${JSON.stringify(line)}\n`)
  if (!answer.cut) outgoing.end()
  else setTimeout(() => outgoing.destroy(), 20)
}

export interface Outcome {
  code: number
  out: string
  err: string
}

function collector(): { stream: Writable; text: () => string } {
  let text = ''
  const stream = new PassThrough()
  stream.on('data', (chunk: Buffer) => (text += chunk.toString()))
  return { stream, text: () => text }
}

/** Runs the command line as a script would: no terminal, no colours. */
export async function hangar(
  argv: readonly string[],
  options: {
    api?: TestApi
    cwd?: string
    stdin?: string
    env?: Record<string, string>
    signal?: AbortSignal
  } = {},
): Promise<Outcome> {
  const out = collector()
  const err = collector()
  const io: Io = {
    stdout: out.stream,
    stderr: err.stream,
    stdin: Readable.from(options.stdin === undefined ? [] : [options.stdin]),
    env: {
      FLY_API_TOKEN: 'secret-token',
      HANGAR_HOME: '/nonexistent',
      HANGAR_API: options.api?.url ?? 'http://127.0.0.1:9',
      ...options.env,
    },
    cwd: options.cwd ?? '/nonexistent-folder',
    interactive: false,
    stdinIsTerminal: options.stdin === undefined,
    color: false,
    signal: options.signal ?? new AbortController().signal,
  }
  const code = await main(argv, io)
  await new Promise((resolve) => setImmediate(resolve))
  return { code, out: out.text(), err: err.text() }
}

/** A temporary folder for the length of a test. */
export function temporaryFolder(context: { after(done: () => void): void }): string {
  const folder = mkdtempSync(join(tmpdir(), 'hangar-cli-'))
  context.after(() => rmSync(folder, { recursive: true, force: true }))
  return folder
}

/** An app as the server shows it. */
export function testApp(name: string, more: object = {}) {
  return {
    id: `app_${name}`,
    name,
    internal_numeric_id: 7,
    network: 'default',
    status: 'deployed',
    machine_count: 1,
    volume_count: 0,
    organization: { name: 'Personal', slug: 'personal', internal_numeric_id: 1 },
    created_at: '2026-01-02T03:04:05Z',
    hostname: `${name}.hangar.localhost`,
    urls: [`http://${name}.hangar.localhost:8080`],
    ...more,
  }
}

/** A machine as the server shows it, managed by a deploy. */
export function testMachine(id: string, more: object = {}, config: object = {}) {
  return {
    id,
    name: `name-${id}`,
    state: 'started',
    region: 'ord',
    image_ref: {
      registry: '127.0.0.1:4285',
      repository: 'demo',
      tag: 'deployment-1',
      digest: 'sha256:0',
      labels: null,
    },
    instance_id: '01INSTANCE',
    version: '01INSTANCE',
    private_ip: 'fdaa:0:18:0:1:0:1:2',
    created_at: '2026-01-02T03:04:05Z',
    updated_at: '2026-01-02T03:04:06Z',
    config: {
      image: 'demo',
      guest: { cpus: 1, cpu_kind: 'shared', memory_mb: 256 },
      metadata: {
        fly_platform_version: 'v2',
        fly_process_group: 'app',
        fly_release_version: '3',
      },
      ...config,
    },
    events: [],
    checks: [],
    cordoned: false,
    host_status: 'ok',
    ...more,
  }
}

export const testRelease = {
  id: 'rel_1',
  version: 4,
  status: 'running',
  driver: 'server',
  strategy: 'rolling',
  description: 'Release',
  reason: '',
  image_ref: '127.0.0.1:4285/demo:deployment-1@sha256:0',
  user: 'me@example.com',
  created_at: '2026-01-02T03:04:05Z',
  updated_at: '2026-01-02T03:04:05Z',
  definition: { app: 'demo' },
}
