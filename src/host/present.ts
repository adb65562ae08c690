import { resolveGuest } from '#spec/guest-size.ts'
import { machineLineHead } from '#spec/machine-line.ts'
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
    checks: agent.runs.get(record.id)?.health.statuses ?? [],
    cordoned: record.cordoned,
    host_status: 'ok',
    ...(runtime ? { runtime } : {}),
  }
}

interface WrittenLine {
  events: readonly MachineEvent[]
  /** What a start would take here, as far as it was known. */
  usual: RuntimeKind | undefined
  before: string
  after: string
}
// A record is replaced when anything shown of it changes, so its text holds for as long as it and its events are the same.
const written = new WeakMap<MachineRecord, WrittenLine>()

/** The machine as a line of a list (spec/machine-line.ts). Only its checks are written anew each time. */
export function presentLine(agent: Agent, record: MachineRecord): string {
  const events = agent.store.history.events(record.id)
  let line = written.get(record)
  const { usual } = agent.runtimes
  if (line?.events !== events || line.usual !== usual) {
    const machine = presentMachine(agent, record)
    const { checks: _, cordoned, host_status, runtime, ...first } = machine
    const before = `${machineLineHead(machine)}${JSON.stringify(first).slice(0, -1)},"checks":`
    const after = `,${JSON.stringify({ cordoned, host_status, runtime }).slice(1)}\n`
    written.set(record, (line = { events, usual, before, after }))
  }
  const checks = agent.runs.get(record.id)?.health.statuses ?? []
  return `${line.before}${JSON.stringify(checks)}${line.after}`
}

export function presentLease(lease: LeaseRecord, version: string): Omit<Lease, 'nonce'> {
  return {
    expires_at: Math.floor(lease.expiresAt / 1000),
    owner: lease.owner,
    description: lease.description,
    version,
  }
}
