import 'reflect-metadata'
import * as x509 from '@peculiar/x509'
import { spawn, spawnSync, type ChildProcess } from 'node:child_process'
import { webcrypto, KeyObject } from 'node:crypto'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import http from 'node:http'
import net from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { once } from 'node:events'
import { WebSocketServer } from 'ws'
import { systemClock } from '#core/clock.ts'
import type { Service } from '#spec/machine-config.ts'
import type { MachineRow } from '#spec/roster.ts'
import type { EdgeSettings } from '#spec/settings.ts'
import { stopDaemon } from '#sys/daemon.ts'
import { createLogger } from '#sys/log.ts'
import { eventually, freePort } from '#sys/test-support.ts'
import { connectRoster, type Announcer, type EdgesView, type Roster } from '#roster/index.ts'

/** A small world for the edge's tests: a real bus and HAProxy, Node servers that stand for machines, a host of paper. */
export interface World {
  dir: string
  settings: EdgeSettings
  key: string
  roster: Roster
  /** What the edges say that they have put into effect. */
  edges: EdgesView
  host: PaperHost
  caCertFile: string
  stopNats(): Promise<void>
  startNats(): void
  close(): Promise<void>
}

export const silentLog = createLogger('test')
silentLog.level = process.env['HANGAR_LOG'] ?? 'silent'

/** Waits until the edges have the newest row of each machine in effect. */
export async function settled(world: World): Promise<void> {
  await eventually(
    'every row in effect',
    () =>
      world.edges.live().length > 0 &&
      [...world.host.machines.values()].every(({ row }) =>
        world.edges.applied(row.id, row.counter),
      ),
  )
}

/** A started machine of the app `web`, as its host would announce it. */
export const exampleRow = (changes: Partial<MachineRow>): MachineRow => ({
  v: 1,
  host: 'h1',
  counter: 1,
  id: 'm1',
  app: 'web',
  org: 'personal',
  network: 1,
  region: 'ord',
  primary_region: 'ord',
  process_group: 'app',
  instance_id: 'v1',
  state: 'started',
  ip4: '10.0.0.2',
  ip6: 'fdaa:0:1:0:1:0:2:2',
  host_api: 'unix:/x',
  services: [],
  ready: true,
  cordoned: false,
  startable: true,
  returning: false,
  changed_at: 1,
  ...changes,
})

export async function makeWorld(changes: Partial<EdgeSettings> = {}): Promise<World> {
  const dir = mkdtempSync(join(tmpdir(), 'hangar-edge-'))
  const key = 'secret'
  writeFileSync(`${dir}/cluster.key`, key)
  await writeAuthority(dir)
  const natsPort = await freePort()
  const settings: EdgeSettings = {
    id: 'edge-ord',
    region: 'ord',
    dir: `${dir}/edge`,
    domain: 'hangar.localhost',
    nats_url: `nats://127.0.0.1:${natsPort}`,
    cluster_key_file: `${dir}/cluster.key`,
    http_port: await freePort('0.0.0.0'),
    https_port: await freePort('0.0.0.0'),
    slots: 32,
    autostop_interval_ms: 600_000,
    hold_ms: 10_000,
    ca_cert_file: `${dir}/ca.pem`,
    ca_key_file: `${dir}/ca.key`,
    waker_port: await freePort(),
    ...changes,
  }
  mkdirSync(settings.dir)
  let nats: ChildProcess | undefined
  const startNats = () => {
    const args = ['-js', '-sd', `${dir}/nats`, '-a', '127.0.0.1', '-p', String(natsPort)]
    nats = spawn('nats-server', [...args, '--auth', key], { stdio: 'ignore' })
  }
  const stopNats = async () => {
    if (nats?.exitCode !== null) return
    nats.kill('SIGKILL')
    await once(nats, 'exit')
  }
  startNats()
  const roster = await connectRoster({
    natsUrl: settings.nats_url,
    key,
    name: 'test',
    log: silentLog,
  })
  const edges = roster.edges({ region: settings.region })
  const host = await openPaperHost({ dir, roster, appPort: await freePort('0.0.0.0') })
  return {
    dir,
    settings,
    key,
    roster,
    edges,
    host,
    caCertFile: settings.ca_cert_file,
    startNats,
    stopNats,
    async close() {
      await host.close()
      edges.close()
      await roster.close()
      await stopNats()
      await stopDaemon(`${settings.dir}/haproxy.json`, 'SIGKILL')
      rmSync(dir, { recursive: true, force: true })
    },
  }
}

async function writeAuthority(dir: string): Promise<void> {
  x509.cryptoProvider.set(webcrypto as Crypto)
  const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' }
  const keys = await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify'])
  const authority = await x509.X509CertificateGenerator.createSelfSigned({
    serialNumber: '01',
    name: 'CN=Hangar test CA',
    notBefore: new Date(systemClock.now() - 60_000),
    notAfter: new Date(systemClock.now() + 1e11),
    keys,
    signingAlgorithm: algorithm,
    extensions: [
      new x509.BasicConstraintsExtension(true, undefined, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign, true),
    ],
  })
  writeFileSync(`${dir}/ca.pem`, authority.toString('pem'))
  const pem = KeyObject.from(keys.privateKey).export({ type: 'pkcs8', format: 'pem' })
  writeFileSync(`${dir}/ca.key`, pem, { mode: 0o600 })
}

export const webService = (port: number, changes: Partial<Service> = {}): Service => ({
  protocol: 'tcp',
  internal_port: port,
  autostop: 'stop',
  autostart: true,
  ports: [
    { port: 80, handlers: ['http'] },
    { port: 443, handlers: ['http', 'tls'] },
  ],
  ...changes,
})

export interface PaperMachine {
  row: MachineRow
  server: http.Server | undefined
  wakes: number
  stops: string[]
  requests: number
  /** Answers of requests for `?held`, which wait until `release`. */
  held: (() => void)[]
  /** Requests whose connection was closed before they were answered. */
  left: number
}

/** Lets the requests go on that the machine holds. */
export function release(machine: PaperMachine): void {
  for (const answer of machine.held.splice(0)) answer()
}

export interface PaperHost {
  machines: Map<string, PaperMachine>
  appPort: number
  /** How long a start takes, and how long after it the app listens. */
  startMs: number
  listenLateMs: number
  failWakes: string | undefined
  refuseSuspend: boolean
  /** Machines that a command runs in. */
  inUse: Set<string>
  add(id: string, row: Partial<MachineRow>): Promise<PaperMachine>
  put(id: string, changes: Partial<MachineRow>): Promise<void>
  listen(id: string): Promise<void>
  unlisten(id: string): Promise<void>
  close(): Promise<void>
}

async function openPaperHost(options: {
  dir: string
  roster: Roster
  appPort: number
}): Promise<PaperHost> {
  const net3 = 1 + Math.floor(Math.random() * 250)
  const net2 = 1 + Math.floor(Math.random() * 250)
  const socket = `${options.dir}/host.sock`
  let counter = 1
  let machinesMade = 0
  // Benches make thousands of machines.
  const nextIp4 = (): string => {
    const [block, last] = [Math.floor(machinesMade / 250), 1 + (machinesMade++ % 250)]
    return `127.${net2}.${1 + ((net3 + block) % 250)}.${last}`
  }
  const announcer: Announcer = options.roster.announcer({
    region: 'ord',
    host: () => ({
      v: 1,
      host: 'h1',
      number: 1,
      region: 'ord',
      api: `unix:${socket}`,
      counter: counter++,
      at: systemClock.now(),
      capacity: { cpus: 1, memory_mb: 1 },
      used: { cpus: 0, memory_mb: 0, machines: 0 },
    }),
  })
  const host: PaperHost = {
    machines: new Map(),
    appPort: options.appPort,
    startMs: 20,
    listenLateMs: 0,
    failWakes: undefined,
    refuseSuspend: false,
    inUse: new Set(),
    async add(id, changes) {
      const running = (changes.state ?? 'started') === 'started'
      const row = exampleRow({
        counter: counter++,
        id,
        ip4: nextIp4(),
        host_api: `unix:${socket}`,
        services: [webService(options.appPort)],
        ready: running,
        changed_at: systemClock.now(),
        ...changes,
      })
      const machine: PaperMachine = {
        row,
        server: undefined,
        wakes: 0,
        stops: [],
        requests: 0,
        held: [],
        left: 0,
      }
      host.machines.set(id, machine)
      if (running) await host.listen(id)
      await announcer.put(row)
      return machine
    },
    async put(id, changes) {
      const machine = host.machines.get(id)!
      machine.row = {
        ...machine.row,
        changed_at: systemClock.now(),
        ...changes,
        counter: counter++,
      }
      await announcer.put(machine.row)
    },
    async listen(id) {
      const machine = host.machines.get(id)!
      if (machine.server) return
      machine.server = appServer(machine)
      machine.server.listen(machine.row.services[0]!.internal_port, machine.row.ip4)
      await once(machine.server, 'listening')
    },
    async unlisten(id) {
      const machine = host.machines.get(id)!
      const { server } = machine
      machine.server = undefined
      server?.closeAllConnections()
      if (server) await new Promise((resolve) => server.close(resolve))
    },
    async close() {
      for (const id of host.machines.keys()) await host.unlisten(id)
      await announcer.close()
      api.closeAllConnections()
      api.close()
    },
  }
  const api = hostApi(host)
  api.listen(socket)
  await once(api, 'listening')
  return host
}

function hostApi(host: PaperHost): http.Server {
  return http.createServer((request, answer) => {
    const [, , , id = '', verb] = (request.url ?? '').split('/')
    const machine = host.machines.get(id)
    const say = (status: number, body: unknown) => {
      answer.writeHead(status, { 'content-type': 'application/json' })
      answer.end(JSON.stringify(body))
    }
    const right =
      request.headers.authorization === 'Bearer secret' &&
      request.headers['x-hangar-source'] === 'proxy'
    if (!right) return say(401, { error: 'no', status: 'unauthorized' })
    if (!machine) return say(404, { error: 'no such machine', status: 'not_found' })
    void (async () => {
      if (verb === 'wake') {
        machine.wakes++
        if (host.failWakes)
          return say(412, { error: host.failWakes, status: 'precondition_failed' })
        await systemClock.sleep(host.startMs)
        const late = host.listenLateMs
        if (late === 0) await host.listen(id)
        else void systemClock.sleep(late).then(() => host.listen(id))
        await host.put(id, { state: 'started', ready: true })
        return say(200, { row: machine.row })
      }
      if (host.inUse.has(id)) return say(409, { error: 'it runs a command', status: 'conflict' })
      if (verb === 'suspend' && host.refuseSuspend) {
        return say(412, { error: 'memory is too large', status: 'precondition_failed' })
      }
      machine.stops.push(verb ?? '')
      await host.put(id, { state: 'stopping', ready: false })
      await systemClock.sleep(50)
      await host.unlisten(id)
      await host.put(id, { state: verb === 'suspend' ? 'suspended' : 'stopped' })
      return say(200, { ok: true })
    })()
    return undefined
  })
}

/** What stands for an app: it tells what it got. */
function appServer(machine: PaperMachine): http.Server {
  const server = http.createServer((request, answer) => {
    machine.requests++
    const url = new URL(request.url ?? '/', 'http://x')
    let bytes = 0
    answer.on('close', () => void (answer.writableEnded || machine.left++))
    request.on('data', (chunk: Buffer) => (bytes += chunk.length))
    request.on('end', () => {
      const ms = Number(url.searchParams.get('ms') ?? 0)
      const status = Number(url.searchParams.get('status') ?? 200)
      const body = JSON.stringify({
        machine: machine.row.id,
        method: request.method,
        url: request.url,
        headers: request.headers,
        bytes,
      })
      const end = () => {
        // An app that dies over a request.
        if (status === 0) request.socket.destroy()
        else answer.writeHead(status, { 'content-type': 'application/json' }).end(body)
      }
      if (url.searchParams.has('held')) machine.held.push(end)
      else setTimeout(end, ms)
    })
  })
  server.keepAliveTimeout = 30_000
  const sockets = new WebSocketServer({ server })
  sockets.on('connection', (socket) => {
    socket.on('message', (message) =>
      socket.send(`${machine.row.id}: ${(message as Buffer).toString()}`),
    )
  })
  return server
}

export interface Got {
  status: number
  headers: http.IncomingHttpHeaders
  text: string
}

/** One request on a connection of its own. */
export function get(
  settings: EdgeSettings,
  options: {
    host?: string
    path?: string
    method?: string
    body?: string | Buffer
    headers?: Record<string, string>
    agent?: http.Agent
  } = {},
): Promise<Got> {
  const { body } = options
  return new Promise((resolve, reject) => {
    const request = http.request({
      host: '127.0.0.1',
      port: settings.http_port,
      path: options.path ?? '/',
      method: options.method ?? 'GET',
      agent: options.agent ?? false,
      headers: {
        host: options.host ?? `web.${settings.domain}:${settings.http_port}`,
        ...(body === undefined ? {} : { 'content-length': Buffer.byteLength(body) }),
        ...options.headers,
      },
    })
    request.on('error', reject)
    request.on('response', (answer) => {
      const chunks: Buffer[] = []
      answer.on('data', (chunk: Buffer) => chunks.push(chunk))
      answer.on('error', reject)
      answer.on('end', () =>
        resolve({
          status: answer.statusCode ?? 0,
          headers: answer.headers,
          text: Buffer.concat(chunks).toString('utf8'),
        }),
      )
    })
    request.end(body)
  })
}

/** Starts an edge as a process of its own, so that it can be killed. */
export function spawnEdge(world: World, wakerFd?: number): ChildProcess {
  const door = new URL('./index.ts', import.meta.url).href
  const program = `
    const { runEdge } = await import(${JSON.stringify(door)})
    const { readFileSync } = await import('node:fs')
    await runEdge(JSON.parse(readFileSync(process.argv[1], 'utf8')))
    console.log('serving')`
  const file = `${world.dir}/edge-settings.json`
  writeFileSync(file, JSON.stringify(world.settings))
  const env = { ...process.env, HANGAR_LOG: process.env['HANGAR_LOG'] ?? 'silent' }
  return spawn(process.execPath, ['--input-type=module', '-e', program, file], {
    stdio: ['ignore', 'pipe', 'inherit', ...(wakerFd === undefined ? [] : [wakerFd])],
    env: wakerFd === undefined ? env : { ...env, HANGAR_WAKER_FD: '3' },
  })
}

export async function serving(edge: ChildProcess): Promise<void> {
  for await (const chunk of edge.stdout ?? []) if (String(chunk).includes('serving')) return
  throw new Error(`the edge ended with ${edge.exitCode}`)
}

export async function killed(process: ChildProcess): Promise<void> {
  if (process.exitCode !== null || process.signalCode !== null) return
  process.kill('SIGKILL')
  await once(process, 'exit')
}

/**
 * A listening socket that outlives every edge, as the supervisor keeps it: bound here without accepting, made to listen
 * by a child.
 */
export function holdWakerSocket(port: number): { fd: number; close(): void } {
  const { _createServerHandle: bind } = net as unknown as {
    _createServerHandle: (address: string, port: number, type: 4) => { fd: number; close(): void }
  }
  const handle = bind('127.0.0.1', port, 4)
  const listen = `require('net').createServer().listen({ fd: 3 }, () => process.exit(0))`
  spawnSync(process.execPath, ['-e', listen], { stdio: ['ignore', 'ignore', 'inherit', handle.fd] })
  return handle
}
