import { Fault } from '#core/fault.ts'
import { newNonce } from '#core/ids.ts'
import { limits } from '#core/limits.ts'
import type { Agent } from './agent.ts'
import type { LeaseRecord } from './store/index.ts'

const heldBy = (lease: LeaseRecord) =>
  new Fault(
    'lease_held',
    `lease currently held by ${lease.owner}, expires at ${new Date(lease.expiresAt).toISOString()}`,
  )

const notFound = (id: string) => new Fault('not_found', `machine ${id} lease not found`)

/** The lease that is in force; one that has expired is gone without a word (MCH-56). */
function current(agent: Agent, id: string): LeaseRecord | undefined {
  const lease = agent.store.leases.find(id)
  return lease && lease.expiresAt > agent.clock.now() ? lease : undefined
}

/**
 * MCH-55: takes the lease, or with its own nonce refreshes it under the same nonce.
 * @throws Fault `lease_held` while somebody else has it; `invalid` for a ttl that is none
 */
export function acquireLease(
  agent: Agent,
  id: string,
  request: { ttlSeconds: number; owner: string; description: string; nonce?: string | undefined },
): LeaseRecord {
  if (agent.store.machines.get(id).destroyedAt !== null) {
    throw new Fault('not_found', `machine not found: ${id} is destroyed`)
  }
  const { ttlSeconds } = request
  if (!(ttlSeconds > 0 && ttlSeconds <= limits.leaseSecondsMax)) {
    throw new Fault(
      'invalid',
      `a lease lasts 1 to ${limits.leaseSecondsMax} seconds, not ${ttlSeconds}`,
    )
  }
  const held = current(agent, id)
  if (held && held.nonce !== request.nonce) throw heldBy(held)
  const lease: LeaseRecord = {
    machineId: id,
    nonce: held?.nonce ?? request.nonce ?? newNonce(),
    owner: held?.owner ?? request.owner,
    description: request.description || (held?.description ?? ''),
    expiresAt: agent.clock.now() + ttlSeconds * 1000,
  }
  agent.store.leases.save(lease)
  return lease
}

/** @throws Fault `not_found` when nobody holds it */
export function readLease(agent: Agent, id: string): LeaseRecord {
  agent.store.machines.get(id)
  const lease = current(agent, id)
  if (!lease) throw notFound(id)
  return lease
}

/** @throws Fault `not_found` when nobody holds it, `lease_held` for a wrong nonce */
export function releaseLease(agent: Agent, id: string, nonce: string | undefined): void {
  const lease = readLease(agent, id)
  if (lease.nonce !== nonce) throw heldBy(lease)
  agent.store.leases.remove(id)
}

/** MCH-56: refuses a change of a machine that somebody else has leased. */
export function requireLease(agent: Agent, id: string, nonce: string | undefined): void {
  const lease = current(agent, id)
  if (lease && lease.nonce !== nonce) throw heldBy(lease)
}
