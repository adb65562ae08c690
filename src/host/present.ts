import { resolveGuest } from '#spec/guest-size.ts'
import type { Lease, Machine } from '#spec/machine.ts'
import { ip6Of, type Agent } from './agent.ts'
import type { LeaseRecord, MachineRecord } from './store/index.ts'

/** MCH-10: a machine as the API shows it. The config is the one that came in, with the guest resolved (MCH-61). */
export function presentMachine(agent: Agent, record: MachineRecord): Machine {
  const { registry, repository, tag, digest, labels } = record.image
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
  }
}

export function presentLease(lease: LeaseRecord, version: string): Omit<Lease, 'nonce'> {
  return {
    expires_at: Math.floor(lease.expiresAt / 1000),
    owner: lease.owner,
    description: lease.description,
    version,
  }
}
