import type { Clock } from '#core/clock.ts'
import { ulid } from '#core/ids.ts'
import type { HostInfo } from '#spec/host-api.ts'
import type { MachineEvent } from '#spec/machine.ts'
import type { MachineRow } from '#spec/roster.ts'
import type { Logger } from '#sys/log.ts'
import type { Announcer, EdgesView } from '#roster/index.ts'
import type { ImageStore } from '#host/image/index.ts'
import type { HostNet } from '#host/net/index.ts'
import type { MachineVerbs, Runtimes } from '#host/runtime/index.ts'
import type { Volumes } from '#host/volume/index.ts'
import { Changes } from './changes.ts'
import type { Health } from './checks/index.ts'
import { Execs } from './execs.ts'
import { KeyedQueue } from './keyed-queue.ts'
import { SharedPasses } from './shared-passes.ts'
import type { LogSpool } from './logs/index.ts'
import { step, type LifeEvent } from './machine-life.ts'
import { machineRow } from './machine-row.ts'
import type { Interrupts } from './piece-of-work.ts'
import type { Durability, MachineRecord, Store } from './store/index.ts'

/** Everything the agent works with; tests hand in fakes of the driver, the network and the images. */
export interface AgentParts {
  host: {
    id: string
    number: number
    region: string
    api: string
    capacity: HostInfo['capacity']
  }
  store: Store
  driver: MachineVerbs
  runtimes: Runtimes
  net: HostNet
  images: ImageStore
  volumes: Volumes
  /** Opens the APIs of the other hosts, to fetch volumes from them. */
  clusterKey: string
  announcer: Announcer
  edges: EdgesView
  spool: LogSpool
  clock: Clock
  log: Logger
  /** What is on this host's disk lies below these folders: no user is told where. */
  dirs: readonly string[]
  /** In [0, 1): jitter. */
  random: () => number
  /** A machine's /etc/resolv.conf. */
  resolvConf: () => string
}

/** One life of a machine's process as this agent process sees it. */
export interface Run {
  instanceId: string
  health: Health
}

/** The one who owns this host's machines. */
export interface Agent extends AgentParts {
  queue: KeyedQueue
  /** Work on volumes and snapshots that no machine and no going down waits for: it goes on with the next process. */
  background: KeyedQueue
  /** The upkeep, and that of volumes: what is asked for meanwhile is done by one more pass. */
  passes: SharedPasses
  /** Ends the filling of a volume. */
  fills: Map<string, AbortController>
  changes: Changes
  runs: Map<string, Run>
  /** The newest announced row of each machine. */
  rows: Map<string, MachineRow>
  interrupts: Map<string, Interrupts>
  execs: Execs
  /** Starts that requests wait for, shared. */
  wakes: Map<string, Promise<MachineRow>>
  /** Machines and volumes to be destroyed before they were made: a create that is still on its way must not make them. */
  unwanted: Set<string>
  /** What the walls around machines dropped when it was looked at last. */
  dropped?: HostInfo['dropped']
  /** `open`; `down` refuses new work; `closed` when the process ends and machines go on without it. */
  mode: 'open' | 'down' | 'closed'
}

export function createAgent(parts: AgentParts): Agent {
  return {
    ...parts,
    queue: new KeyedQueue(),
    background: new KeyedQueue(),
    passes: new SharedPasses(),
    fills: new Map(),
    changes: new Changes(),
    runs: new Map(),
    rows: new Map(),
    interrupts: new Map(),
    execs: new Execs(),
    wakes: new Map(),
    unwanted: new Set(),
    mode: 'open',
  }
}

const unwantedMax = 10_000

export function refuseToMake(agent: Agent, id: string): void {
  agent.unwanted.add(id)
  const [oldest] = agent.unwanted
  if (agent.unwanted.size > unwantedMax && oldest !== undefined) agent.unwanted.delete(oldest)
}

export type Source = MachineEvent['source']
export type NewEvent = Pick<MachineEvent, 'type' | 'status' | 'source' | 'request'>

export interface Change {
  patch?: Partial<MachineRecord>
  events?: NewEvent[]
  /** `power` unless a power loss ends what is written down with it, as with a start that nobody was promised. */
  durability?: Durability
}

/** Writes a change of a machine and its events in one transaction, then tells everyone. */
export function commit(agent: Agent, record: MachineRecord, change: Change): MachineRecord {
  const now = agent.clock.now()
  const next: MachineRecord = { ...record, ...change.patch, updatedAt: now }
  agent.store.transaction(() => {
    agent.store.machines.save(next)
    for (const event of change.events ?? []) {
      agent.store.history.addEvent(record.id, { id: ulid(now), timestamp: now, ...event })
    }
  }, change.durability)
  announce(agent, next)
  agent.changes.notify(record.id)
  return next
}

/**
 * Takes a machine through one event of its life and writes it down before anything is done about it.
 * @throws Fault `precondition_failed` when the event is not legal now
 */
export function apply(
  agent: Agent,
  record: MachineRecord,
  event: LifeEvent,
  change: Change = {},
): MachineRecord {
  const now = agent.clock.now()
  const { life } = step(record.life, event, now, `machine ${record.id}`)
  const coldStart = life.state === 'starting' && !life.resume
  return commit(agent, record, {
    patch: {
      changedAt: now,
      run: coldStart ? record.run + 1 : record.run,
      ...(life.state === 'started' ? {} : { ready: false }),
      ...change.patch,
      life,
    },
    events: change.events ?? [],
    ...(change.durability ? { durability: change.durability } : {}),
  })
}

/** Makes what is known of a machine its newest row in the roster. */
export function announce(agent: Agent, record: MachineRecord): void {
  if (record.destroyedAt !== null) {
    agent.rows.delete(record.id)
    agent.edges.forget(record.id)
    void agent.announcer.forget(record.id)
    return
  }
  const row = machineRow(record, {
    host: agent.host,
    counter: agent.store.nextCounter(),
    ip6: ip6Of(agent, record),
  })
  agent.rows.set(record.id, row)
  void agent.announcer.put(row)
}

/** NET-1: the address that the machine's link has. */
export function ip6Of(agent: Pick<Agent, 'net'>, { id, app, index }: MachineRecord): string {
  return agent.net.place({ id, network: app.network, index }).ip6
}
