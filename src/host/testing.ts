import { mkdtempSync, rmSync } from 'node:fs'
import type { Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import type { TestContext } from 'node:test'
import { machine6pn } from '#core/addresses.ts'
import { systemClock } from '#core/clock.ts'
import { Fault } from '#core/fault.ts'
import type { ResolvedImage } from '#spec/host-api.ts'
import { capacityOf } from './capacity.ts'
import type { Machine } from '#spec/machine.ts'
import type { MachineRow } from '#spec/roster.ts'
import type { RuntimeWish } from '#spec/runtime.ts'
import { callJson } from '#sys/http-client.ts'
import { createLogger } from '#sys/log.ts'
import type { ImageStore } from '#host/image/index.ts'
import type { HostNet } from '#host/net/index.ts'
import { fakeDriver, openRuntimes, type FakeDriver } from '#host/runtime/index.ts'
import type { Volumes } from '#host/volume/index.ts'
import type { EdgesView } from '#roster/index.ts'
import { createAgent, type Agent } from './agent.ts'
import { listen } from './host.ts'
import { LogSpool } from './logs/index.ts'
import { recoverMachines } from './recover.ts'
import { endRun } from './run.ts'
import { createServer } from './server.ts'
import { openStore } from './store/index.ts'
import { recoverVolumes } from './volume-verbs.ts'

/** Edges as a test says they are. */
export interface FakeEdges extends EdgesView {
  /** Newest row each fake edge has in effect, by machine. */
  seen: Map<string, number>
  inFlight: Map<string, number>
  edges: string[]
  word(): void
}

export function fakeEdges(): FakeEdges {
  const callbacks = new Set<() => void>()
  const fake: FakeEdges = {
    seen: new Map(),
    inFlight: new Map(),
    edges: [],
    word: () => callbacks.forEach((callback) => callback()),
    live: () => fake.edges,
    applied: (id, counter) => fake.edges.length === 0 || (fake.seen.get(id) ?? -1) >= counter,
    sessions: (id) => fake.inFlight.get(id) ?? 0,
    onWord: (callback) => {
      callbacks.add(callback)
      return () => void callbacks.delete(callback)
    },
    forget: () => {},
    close: () => {},
  }
  return fake
}

/** Images that are all there, except one named `missing`. */
function fakeImages(): ImageStore {
  const resolve = async (ref: string): Promise<ResolvedImage> => {
    if (ref.includes('missing')) throw new Fault('image_unavailable', `no image ${ref}`)
    const digest = `sha256:${Buffer.from(ref).toString('hex').padEnd(64, '0').slice(0, 64)}`
    const parts = { registry: 'local', repository: ref, tag: 'latest', labels: null }
    return { ...parts, digest, ref: `local/${ref}:latest@${digest}`, size: 1, exposed_ports: [] }
  }
  const config = {
    env: ['IMAGE=1', 'LAYER=image'],
    entrypoint: ['/entry'],
    cmd: ['serve'],
    user: '',
    workdir: '/',
    exposedPorts: [],
    labels: {},
  }
  const local = (digest: string) => ({ digest, squashfsPath: '/none', config })
  return {
    resolve,
    ensure: async ({ ref }) => local(ref.split('@')[1] as string),
    find: (digest) => local(digest),
    collect: async () => 0,
  }
}

const nothingDropped = { spoofed: 0, to_host: 0, to_machines: 0, foreign: 0 }

/** Every machine answers on the loopback address, where tests listen for it. */
function fakeNet(): HostNet & { attached: Set<string> } {
  const attached = new Set<string>()
  const place: HostNet['place'] = ({ id, network, index }) => ({
    netnsPath: `/run/netns/${id}`,
    netnsName: id,
    ip4: '127.0.0.1',
    ip6: machine6pn(network, 7, index + 1),
  })
  return {
    attached,
    place,
    attach: async (request) => {
      attached.add(request.id)
      return place(request)
    },
    detach: async (id) => void attached.delete(id),
    dropped: async () => ({ ...nothingDropped, machines: new Map() }),
    keepOnly: async (ids) => attached.forEach((id) => !ids.includes(id) && attached.delete(id)),
    destroyAll: async () => attached.clear(),
  }
}

function fakeVolumes(): Volumes & { mounted: Set<string> } {
  const mounted = new Set<string>()
  const made = new Set<string>()
  const none = () => Promise.reject(new Error('this test has no real volumes'))
  return {
    mounted,
    create: async ({ id }) => void made.add(id),
    fillFrom: none,
    extend: async () => true,
    growOn: async () => {},
    mount: async (id) => {
      mounted.add(id)
      return `/volumes/${id}`
    },
    attach: async (id) => {
      mounted.add(id)
      return `/volumes/${id}.img`
    },
    unmount: async (id) => void mounted.delete(id),
    destroy: async (id) => void made.delete(id),
    list: () => [...made],
    imagePath: (id) => `/volumes/${id}.img`,
    usage: async () => new Map(),
    changedAt: async () => undefined,
    freeBytes: async () => 2 ** 40,
    snapshots: {
      take: none,
      read: () => Readable.from([]),
      remove: async () => {},
      list: () => [],
      folderOf: () => '/none',
      diskOf: () => '/none',
    },
  }
}

export interface TestHost {
  agent: Agent
  driver: FakeDriver
  edges: FakeEdges
  rows: Map<string, MachineRow>
  attached: Set<string>
  mounted: Set<string>
  /** One call of the host's API. */
  call<T = Machine>(
    method: string,
    path: string,
    body?: unknown,
    headers?: Record<string, string>,
  ): Promise<T>
  url: string
  /** What it was opened with, to open another over the same. */
  given: Parameters<typeof openTestHost>[1]
  /** The process ends without a word, as with kill -9; what runs keeps running. */
  crash(): void
  /** A new process over the same folder and the same running machines. */
  reopen(): Promise<TestHost>
}

export const testKey = 'cluster-key'

/** A host over fakes of what it drives, with its real store, logs, checks and HTTP server. */
export async function openTestHost(
  t: TestContext,
  given: {
    dir?: string
    driver?: FakeDriver
    /** Of VMs; machines take them where they say nothing, unless `wish` says otherwise. */
    vms?: FakeDriver
    wish?: RuntimeWish
    openVolumes?: (dir: string) => Volumes
  } = {},
): Promise<TestHost> {
  const { dir = mkdtempSync(join(tmpdir(), 'hangar-host-')), driver = fakeDriver(), vms } = given
  const kept = { ...given, dir, driver }
  const rows = new Map<string, MachineRow>()
  const edges = fakeEdges()
  const net = fakeNet()
  const fakes = fakeVolumes()
  const store = openStore(dir)
  const log = createLogger('test')
  const runtimes = openRuntimes({
    drivers: { ...(vms ? { qemu: vms } : {}), container: driver },
    wish: given.wish ?? (vms ? 'qemu' : 'container'),
    log,
  })
  await runtimes.begin()
  const agent = createAgent({
    host: { id: 'test', number: 7, region: 'ord', api: 'unix:/none', capacity: capacityOf(1) },
    store,
    driver: runtimes.driver,
    runtimes,
    net,
    images: fakeImages(),
    volumes: given.openVolumes?.(dir) ?? fakes,
    clusterKey: testKey,
    announcer: {
      put: async (row) => void rows.set(row.id, row),
      forget: async (id) => void rows.delete(id),
      close: async () => {},
    },
    edges,
    spool: new LogSpool(join(dir, 'logs')),
    clock: systemClock,
    log,
    dirs: [dir],
    random: () => 0.5,
    resolvConf: () => 'nameserver 192.0.2.1\n',
  })
  recoverVolumes(agent)
  await recoverMachines(agent)
  const server: Server = await listen('http://127.0.0.1:0', createServer(agent, testKey).fetch)
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  let open = true
  const crash = () => {
    if (!open) return
    open = false
    agent.mode = 'closed'
    for (const id of agent.runs.keys()) endRun(agent, id)
    server.closeAllConnections()
    server.close()
    store.close()
  }
  t.after(() => {
    crash()
    rmSync(dir, { recursive: true, force: true })
  })
  return {
    agent,
    driver,
    edges,
    rows,
    attached: net.attached,
    mounted: fakes.mounted,
    call: (method, path, body, headers = {}) =>
      callJson(url, {
        method,
        path,
        headers: { authorization: `Bearer ${testKey}`, ...headers },
        ...(body === undefined ? {} : { body }),
      }),
    url,
    given: kept,
    crash,
    reopen: async () => {
      crash()
      return openTestHost(t, kept)
    },
  }
}

let created = 0

/** Creates a machine and waits until it is started, or until it rests. */
export async function createTestMachine(
  host: TestHost,
  config: object = {},
  input: object = {},
): Promise<Machine> {
  const id = `test${String(++created).padStart(10, '0')}`
  const machine = await host.call('POST', '/v1/machines', {
    id,
    app: { id: 'app_1', name: 'web', org: 'personal', network: 3 },
    owner: 'tester',
    input: { config: { image: 'busybox', ...config }, ...input },
  })
  const state = 'skip_launch' in input ? 'stopped' : 'started'
  await host.call('GET', `/v1/machines/${id}/wait?state=${state}&timeout=60`)
  return { ...(await host.call('GET', `/v1/machines/${id}`)), ...pickNonce(machine) }
}

const pickNonce = ({ nonce }: Machine) => (nonce === undefined ? {} : { nonce })
