import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import http from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pino } from 'pino'
import { systemClock } from '#core/clock.ts'
import { Fault } from '#core/fault.ts'
import { newNonce, ulid } from '#core/ids.ts'
import type { AppSecrets, HostCreate, HostUpdate } from '#spec/host-api.ts'
import { machineHead, writeMachineList } from '#spec/machine-line.ts'
import type { Machine } from '#spec/machine.ts'
import type { ControlSettings } from '#spec/settings.ts'
import { ensureFirstToken } from './auth/index.ts'
import type { ControlContext } from './context.ts'
import { ClientContacts } from './deploy/index.ts'
import { openHostDirectory } from './hosts/index.ts'
import { ensureOrg } from './orgs/index.ts'
import { loadSecretBox } from './store/index.ts'
import { startTestPostgres } from './store/test-support.ts'
import { actOnSnapshot, actOnVolume, type FakeVolumes, type Owned } from './volumes/test-support.ts'

export interface FakeHost extends FakeVolumes {
  id: string
  machines: Map<string, Machine & Owned>
  secrets: Map<string, AppSecrets>
  creates: HostCreate[]
  calls: string[]
  /** Thrown away after one use: what the next call whose line matches is answered. */
  refuse: { match: RegExp; fault: Fault | 'hang up' | 'act and hang up' }[]
  logs: string[]
  /** Of every lease, in seconds since the epoch; long ago unless a test says otherwise. */
  leasesEndAt: number
  /** Followed log streams that are open now. */
  streams: number
  setReachable(yes: boolean): Promise<void>
  close(): Promise<void>
}

export interface TestControl {
  ctx: ControlContext
  dir: string
  hosts: FakeHost[]
  /** A heartbeat of every host, as the bus brings it. */
  beat(): void
  close(): Promise<void>
}

/** The organization that a new cloud has, and the token of its operator. */
export async function operatorToken(ctx: ControlContext): Promise<string> {
  await ensureOrg(ctx, 'personal', 'Personal')
  await ensureFirstToken(ctx)
  return readFileSync(ctx.settings.first_token_file, 'utf8').trim()
}

/** A context on a real database, with hosts that speak the host API on unix sockets and keep machines in memory only. */
export async function startTestControl(hostNames = ['h1']): Promise<TestControl> {
  const pg = await startTestPostgres()
  const dir = mkdtempSync(join(tmpdir(), 'hangar-ctl-'))
  writeFileSync(join(dir, 'cluster.key'), 'cluster-key')
  const log = pino({ level: process.env['HANGAR_LOG'] ?? 'silent' })
  const stop = new AbortController()
  const settings: ControlSettings = {
    dir: join(dir, 'control'),
    database_url: pg.url,
    nats_url: 'nats://127.0.0.1:1',
    cluster_key_file: join(dir, 'cluster.key'),
    listen: { address: '127.0.0.1', port: 0 },
    domain: 'hangar.localhost',
    http_port: 8080,
    https_port: 443,
    registry_host: '127.0.0.1:1',
    registry_token_key_file: join(dir, 'registry.key'),
    registry_token_cert_file: join(dir, 'registry.pem'),
    docker_host: `unix://${dir}/docker.sock`,
    regions: ['ord'],
    first_token_file: join(dir, 'token'),
  }
  const ctx: ControlContext = {
    db: pg.db,
    settings,
    log,
    clock: systemClock,
    hosts: await openHostDirectory({ db: pg.db, clock: systemClock, log }),
    clients: new ClientContacts(systemClock),
    clusterKey: 'cluster-key',
    secretBox: loadSecretBox(settings.dir),
    stopping: stop.signal,
  }
  const hosts = await Promise.all(
    hostNames.map((id, index) =>
      startFakeHost(id, { socket: join(dir, `${id}.sock`), number: index + 1 }),
    ),
  )
  const beat = () => {
    for (const [index, host] of hosts.entries()) {
      const used = { cpus: host.machines.size, memory_mb: 0, machines: host.machines.size }
      ctx.hosts.note({
        v: 1,
        host: host.id,
        number: index + 1,
        region: 'ord',
        api: `unix:${join(dir, `${host.id}.sock`)}`,
        counter: 1,
        at: Date.now(),
        capacity: { cpus: 16, memory_mb: 16_384 },
        used,
      })
    }
  }
  beat()
  return {
    ctx,
    dir,
    hosts,
    beat,
    close: async () => {
      stop.abort()
      for (const host of hosts) await host.close()
      await pg.close()
      rmSync(dir, { recursive: true, force: true })
    },
  }
}

async function startFakeHost(
  id: string,
  { socket, number }: { socket: string; number: number },
): Promise<FakeHost> {
  const host: FakeHost = {
    id,
    machines: new Map(),
    number,
    volumes: new Map(),
    snapshots: new Map(),
    volumeCreates: [],
    secrets: new Map(),
    creates: [],
    calls: [],
    refuse: [],
    logs: [],
    leasesEndAt: 1,
    streams: 0,
    setReachable: async (yes) => {
      if (yes) await listen()
      else {
        server.closeAllConnections()
        await new Promise((resolve) => server.close(resolve))
      }
    },
    close: async () => {
      if (server.listening) await host.setReachable(false)
    },
  }
  const server = http.createServer((request, response) => {
    void answer(host, request, response)
  })
  const listen = () => new Promise<void>((resolve) => server.listen(socket, resolve))
  await listen()
  return host
}

async function answer(
  host: FakeHost,
  request: http.IncomingMessage,
  response: http.ServerResponse,
): Promise<void> {
  const chunks: Buffer[] = []
  for await (const chunk of request) chunks.push(chunk as Buffer)
  const text = Buffer.concat(chunks).toString('utf8')
  const line = `${request.method} ${request.url}`
  host.calls.push(line)
  const send = (status: number, body: unknown) => {
    response.writeHead(status, { 'content-type': 'application/json' })
    response.end(typeof body === 'string' ? body : JSON.stringify(body))
  }
  if (request.headers.authorization !== 'Bearer cluster-key') {
    return send(401, { error: 'no cluster key', status: 'unauthorized' })
  }
  const index = host.refuse.findIndex(({ match }) => match.test(line))
  const refusal = index < 0 ? undefined : host.refuse.splice(index, 1)[0]?.fault
  if (refusal === 'hang up') return void request.socket.destroy()
  if (refusal instanceof Fault) {
    return send(refusal.status, { error: refusal.message, status: refusal.code })
  }
  if (request.url?.includes('/logs')) {
    response.writeHead(200, { 'content-type': 'application/x-ndjson' })
    for (const one of host.logs) response.write(`${one}\n`)
    if (!request.url.includes('follow=true')) return void response.end()
    host.streams++
    response.on('close', () => host.streams--)
    return
  }
  try {
    const body: unknown = text === '' ? undefined : JSON.parse(text)
    const result = act(host, request, body)
    if (refusal === 'act and hang up') return void request.socket.destroy()
    send(200, result)
  } catch (error) {
    const fault = error instanceof Fault ? error : new Fault('internal', String(error))
    send(fault.status, { error: fault.message, status: fault.code })
  }
}

function act(host: FakeHost, request: http.IncomingMessage, body: unknown): unknown {
  const url = new URL(request.url ?? '', 'http://host')
  const [, , kind = '', id, verb, key] = url.pathname.split('/')
  if (kind === 'host') return hostInfo(host)
  if (kind === 'apps' && verb === 'secrets') {
    host.secrets.set(id as string, body as AppSecrets)
    return { ok: true }
  }
  if (kind === 'apps') return { ok: true }
  const method = request.method ?? ''
  if (kind === 'volumes') return actOnVolume(host, { method, url, id, verb, body })
  if (kind === 'snapshots') return actOnSnapshot(host, id)
  if (kind === 'images') return resolvedImage((body as { image: string }).image)
  if (id === undefined && request.method === 'POST') return createMachine(host, body as HostCreate)
  if (id === undefined) {
    const app = url.searchParams.get('app')
    const machines = [...host.machines.values()]
    const ofApp = machines.filter((one) => one.app === app || one.appId === app)
    if (url.searchParams.get('indexed') !== 'true') return ofApp
    return writeMachineList(
      ofApp.map((one) => ({ head: machineHead(one), json: JSON.stringify(one) })),
    )
  }
  const machine = host.machines.get(id)
  if (!machine) throw new Fault('not_found', `machine not found: ${id}`)
  if (verb === undefined) return actOnMachine(machine, request.method ?? '', body)
  if (verb === 'start' || verb === 'stop') {
    const source = request.headers['x-hangar-source'] as 'user' | 'flyd'
    const status = verb === 'start' ? 'starting' : 'stopping'
    machine.events.unshift({ id: ulid(), type: verb, status, source, timestamp: Date.now() })
  }
  const nonce = request.headers['fly-machine-lease-nonce']
  return verbOnMachine(machine, {
    verb,
    key,
    method,
    body,
    url,
    nonce,
    expires_at: host.leasesEndAt,
  })
}

const hostInfo = (host: FakeHost) => ({
  id: host.id,
  number: 1,
  region: 'ord',
  pid: 1,
  runtime: 'fake',
  runtime_note: 'keeps machines in memory',
  machines: host.machines.size,
  capacity: { cpus: 16, memory_mb: 16_384 },
  used: { cpus: host.machines.size, memory_mb: 0, machines: host.machines.size },
})

const resolvedImage = (image: string) => ({
  registry: 'r',
  repository: image,
  tag: 'latest',
  digest: 'sha256:0',
  labels: null,
  ref: `r/${image}:latest@sha256:0`,
  size: 1,
  exposed_ports: [],
})

function createMachine(host: FakeHost, create: HostCreate): Machine {
  host.creates.push(create)
  const version = ulid()
  const machine = {
    id: create.id,
    app: create.app.name,
    appId: create.app.id,
    name: create.input.name ?? '',
    state: create.input.skip_launch ? ('stopped' as const) : ('started' as const),
    region: create.input.region ?? '',
    image_ref: { registry: 'r', repository: 'i', tag: 't', digest: 'sha256:0', labels: null },
    instance_id: version,
    version,
    private_ip: 'fdaa:0:1:0:1:0:1:2',
    created_at: new Date().toISOString(),
    updated_at: new Date().toISOString(),
    config: create.input.config,
    events: [],
    checks: [],
    cordoned: false,
    host_status: 'ok' as const,
  }
  host.machines.set(create.id, machine)
  return create.input.lease_ttl ? { ...machine, nonce: newNonce() } : machine
}

function actOnMachine(machine: Machine, method: string, body: unknown): unknown {
  if (method === 'GET') return machine
  machine.updated_at = new Date().toISOString()
  if (method === 'DELETE') {
    machine.state = 'destroyed'
    return { ok: true }
  }
  machine.config = (body as HostUpdate).input.config
  machine.instance_id = machine.version = ulid()
  return machine
}

function verbOnMachine(
  machine: Machine,
  call: {
    verb: string
    key: string | undefined
    method: string
    body: unknown
    url: URL
    nonce: unknown
    expires_at: number
  },
): unknown {
  const { verb, key, method, body, url, nonce, expires_at } = call
  const previous_state = machine.state
  if (verb === 'start') machine.state = 'started'
  if (verb === 'stop') machine.state = 'stopped'
  if (verb === 'wait') {
    if (url.searchParams.getAll('state').includes(machine.state)) return { ok: true }
    throw new Fault('wait_timeout', `machine ${machine.id} is ${machine.state}`)
  }
  if (verb === 'lease') {
    if (method === 'DELETE') return { ok: true }
    const { description = '', owner = '' } = (body ?? {}) as Record<string, string>
    const data = { expires_at, owner, description, version: 'v' }
    if (method === 'GET') return { status: 'success', data }
    return { status: 'success', data: { nonce: nonce ?? newNonce(), ...data } }
  }
  if (verb === 'metadata') {
    const all = (machine.config.metadata ??= {})
    if (method === 'POST') all[key ?? ''] = (body as { value: string }).value
    if (method === 'DELETE') delete all[key ?? '']
    return all
  }
  if (verb === 'exec') return { exit_code: 0, stdout: JSON.stringify(body), stderr: '' }
  if (verb === 'routed') return { routed: true, edges: 1 }
  if (['events', 'versions', 'ps'].includes(verb)) return []
  return { ok: true, previous_state }
}
