import { resolveGuest } from '#spec/guest-size.ts'
import { machineHead, type WrittenMachine } from '#spec/machine-line.ts'
import type { RuntimeKind } from '#spec/runtime.ts'
import type { Lease, Machine, MachineEvent } from '#spec/machine.ts'
import { ip6Of, type Agent } from './agent.ts'
import { presentRuntime } from './runtime-choice.ts'
import type { LeaseRecord, MachineRecord } from './store/index.ts'

/** MCH-10: a machine as the API shows it. The config is the one that came in, with the guest resolved (MCH-61). */
export function presentMachine(agent: Agent, record: MachineRecord): Machine {
  const { registry, repository, tag, digest, labels } = record.image
  const runtime = presentRuntime(agent, record)
  return {
    id: record.id,
    name: record.name,
    state: record.life.state,
    region: record.region,
    image_ref: { registry, repository, tag, digest, labels },
    instance_id: record.instanceId,
    version: record.instanceId,
    private_ip: ip6Of(agent, record),
    created_at: new Date(record.createdAt).toISOString(),
    updated_at: new Date(record.updatedAt).toISOString(),
    config: { ...record.config, guest: resolveGuest(record.config) },
    events: [...agent.store.history.events(record.id)],
    checks: shownChecks(agent, record),
    cordoned: record.cordoned,
    host_status: 'ok',
    ...(runtime ? { runtime } : {}),
  }
}

interface Text {
  events: readonly MachineEvent[]
  /** What a start would take here, as far as it was known. */
  usual: RuntimeKind | undefined
  head: string
  before: string
  after: string
}
// A record is replaced when anything shown of it changes, so its text holds for as long as it and its events are the same.
const texts = new WeakMap<MachineRecord, Text>()

/** The machine for a list (spec/machine-line.ts). Only its checks are written anew each time. */
export function writeMachine(agent: Agent, record: MachineRecord): WrittenMachine {
  const events = agent.store.history.events(record.id)
  let text = texts.get(record)
  const { usual } = agent.runtimes
  if (text?.events !== events || text.usual !== usual) {
    const machine = presentMachine(agent, record)
    const { checks: _, cordoned, host_status, runtime, ...first } = machine
    const head = machineHead(machine)
    const before = `${JSON.stringify(first).slice(0, -1)},"checks":`
    const after = `,${JSON.stringify({ cordoned, host_status, runtime }).slice(1)}`
    texts.set(record, (text = { events, usual, head, before, after }))
  }
  const checks = shownChecks(agent, record)
  return { head: text.head, json: `${text.before}${JSON.stringify(checks)}${text.after}` }
}

/** CHK-6. What passed for the version that still runs says nothing of the one that is about to take its place. */
function shownChecks(agent: Agent, record: MachineRecord): Machine['checks'] {
  const run = agent.runs.get(record.id)
  const statuses = run?.health.statuses ?? []
  if (run?.instanceId === record.instanceId) return statuses
  return statuses.map((check) => ({ ...check, status: 'critical', output: 'not checked yet' }))
}

export function presentLease(lease: LeaseRecord, version: string): Omit<Lease, 'nonce'> {
  return {
    expires_at: Math.floor(lease.expiresAt / 1000),
    owner: lease.owner,
    description: lease.description,
    version,
  }
}
