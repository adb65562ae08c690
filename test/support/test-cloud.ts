import { spawn } from 'node:child_process'
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, writeFileSync, cpSync } from 'node:fs'
import http from 'node:http'
import { join, resolve } from 'node:path'
import type { DaemonRecord } from '#sys/daemon.ts'
import { isAlive } from '#sys/process.ts'
import { startTestImages } from '../images/build.ts'

const root = resolve(import.meta.dirname, '../..')

export interface CommandResult {
  code: number
  stdout: string
  stderr: string
}

export interface Answer {
  status: number
  headers: http.IncomingHttpHeaders
  body: string
}

/** A whole cloud of its own for one test file: its folder, its ports, its stand-in for the public registry. */
export interface TestCloud {
  home: string
  ports: { http: number; https: number; api: number }
  /** Runs ./hangar against this cloud. */
  hangar(
    args: string[],
    options?: { cwd?: string; input?: string; timeoutMs?: number },
  ): Promise<CommandResult>
  /** Like `hangar`, but anything other than exit code 0 fails the test with the output. */
  ok(args: string[], options?: { cwd?: string; input?: string }): Promise<string>
  /** A request through the edge. */
  get(
    app: string,
    path?: string,
    options?: http.RequestOptions & { body?: string },
  ): Promise<Answer>
  api(method: string, path: string, body?: unknown): Promise<Answer>
  /** The records of our own daemons and natives whose name starts so. */
  daemons(prefix: string): DaemonRecord[]
  /** A folder with a copy of `test/apps/NAME`. */
  appFolder(name: string): string
  destroy(): Promise<void>
}

function runHangar(
  home: string,
  args: string[],
  options: { cwd?: string; input?: string; timeoutMs?: number } = {},
): Promise<CommandResult> {
  return new Promise((done, fail) => {
    const child = spawn(join(root, 'hangar'), args, {
      cwd: options.cwd ?? home,
      env: { ...process.env, HANGAR_HOME: home, NO_COLOR: '1' },
      stdio: ['pipe', 'pipe', 'pipe'],
      timeout: options.timeoutMs ?? 280_000,
    })
    let stdout = ''
    let stderr = ''
    child.stdout.on('data', (chunk: Buffer) => (stdout += chunk.toString()))
    child.stderr.on('data', (chunk: Buffer) => (stderr += chunk.toString()))
    child.on('error', fail)
    child.on('close', (code) => done({ code: code ?? -1, stdout, stderr }))
    child.stdin.on('error', () => {})
    child.stdin.end(options.input ?? '')
  })
}

export function request(
  port: number,
  path: string,
  options: http.RequestOptions & { body?: string },
): Promise<Answer> {
  return new Promise((done, fail) => {
    const { body, ...rest } = options
    const outgoing = http.request(
      { host: '127.0.0.1', port, path, agent: false, ...rest },
      (incoming) => {
        let text = ''
        incoming.setEncoding('utf8')
        incoming.on('data', (chunk: string) => (text += chunk))
        incoming.on('error', fail)
        incoming.on('end', () =>
          done({ status: incoming.statusCode ?? 0, headers: incoming.headers, body: text }),
        )
      },
    )
    outgoing.on('error', fail)
    outgoing.end(body)
  })
}

export async function startTestCloud(options: {
  name: string
  images: readonly string[]
  autostopIntervalMs?: number
  /** More for `hangar up`. */
  upArgs?: readonly string[]
}): Promise<TestCloud> {
  const home = mkdtempSync(`/tmp/hangar-${options.name}-`)
  const images = await startTestImages({ names: options.images })
  writeFileSync(
    join(home, 'hangar.toml'),
    [
      `mirrors = { "docker.io" = ["${images.url}"] }`,
      '[edge]',
      'slots = 64',
      `autostop_interval_ms = ${options.autostopIntervalMs ?? 300_000}`,
    ].join('\n'),
  )
  const up = await runHangar(home, ['up', ...(options.upArgs ?? [])])
  if (up.code !== 0) {
    await runHangar(home, ['destroy', '--yes'])
    await images.close()
    throw new Error(`hangar up failed (${up.code}):\n${up.stdout}\n${up.stderr}`)
  }
  const { ports } = JSON.parse(readFileSync(join(home, 'state.json'), 'utf8')) as {
    ports: TestCloud['ports']
  }
  const token = readFileSync(join(home, 'token'), 'utf8').trim()
  const hangar: TestCloud['hangar'] = (args, more) => runHangar(home, args, more)
  return {
    home,
    ports,
    hangar,
    async ok(args, more) {
      const result = await hangar(args, more)
      if (result.code !== 0) {
        throw new Error(
          `hangar ${args.join(' ')} exited ${result.code}:\n${result.stdout}\n${result.stderr}`,
        )
      }
      return result.stdout
    },
    get: (app, path = '/', more = {}) =>
      request(ports.http, path, {
        ...more,
        headers: {
          host: `${app}.hangar.localhost`,
          ...(more.headers as Record<string, string> | undefined),
        },
      }),
    api: (method, path, body) =>
      request(ports.api, path, {
        method,
        headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      }),
    daemons: (prefix) =>
      readdirSync(join(home, 'run'))
        .filter((f) => f.startsWith(prefix) && f.endsWith('.json'))
        .map((f) => JSON.parse(readFileSync(join(home, 'run', f), 'utf8')) as DaemonRecord)
        .filter((r) => r.pid > 0 && isAlive(r)),
    appFolder(name) {
      const folder = join(home, 'apps', name)
      mkdirSync(folder, { recursive: true })
      cpSync(join(root, 'test/apps', name), folder, { recursive: true })
      return folder
    },
    async destroy() {
      const result = await runHangar(home, ['destroy', '--yes'])
      await images.close()
      if (result.code !== 0)
        throw new Error(`hangar destroy failed:\n${result.stdout}\n${result.stderr}`)
    },
  }
}
