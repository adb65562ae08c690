import { Fault } from '#core/fault.ts'
import { generatedName, ulid } from '#core/ids.ts'
import { resolveGuest } from '#spec/guest-size.ts'
import type { HostCreate } from '#spec/host-api.ts'
import type { MachineInput } from '#spec/machine.ts'
import { apply, announce, type Agent, type NewEvent } from './agent.ts'
import { checkCapacity } from './capacity.ts'
import { checkConfig } from './config-rules.ts'
import { acquireLease } from './leases.ts'
import { newLife } from './machine-life.ts'
import { attachVolume } from './volume-attach.ts'
import { operate } from './work.ts'
import type { LeaseRecord, MachineRecord } from './store/index.ts'

/** A machine that rests after its creation: asked so, or a standby (MCH-79). */
const rests = (input: MachineInput) =>
  input.skip_launch === true || Boolean(input.config.standbys?.length)

/**
 * MCH-20…25: creates a machine and, unless asked not to, starts it; resolves as soon as it is written down. A repeated
 * create of the same id answers with what is there.
 */
export async function createMachine(
  agent: Agent,
  request: HostCreate,
): Promise<{ record: MachineRecord; lease?: LeaseRecord }> {
  const { input, app, id } = request
  const existing = agent.store.machines.find(id)
  if (existing) return { record: existing }
  checkConfig(input.config)
  requireSecretsVersion(agent, request)
  if (!rests(input)) checkCapacity(agent, resolveGuest(input.config))
  const image = await agent.images.resolve(input.config.image)
  if (agent.unwanted.has(id)) {
    throw new Fault('conflict', `machine ${id} was destroyed while it was made`)
  }
  const record = agent.store.transaction(() => {
    if (request.secrets) agent.store.secrets.put(app.id, request.secrets)
    const now = agent.clock.now()
    const index = agent.store.machines.freeIndex()
    // Known from the beginning, so that edges route to a machine that was never started and wake it.
    const { ip4 } = agent.net.place({ id, network: app.network, index })
    const next: MachineRecord = {
      id,
      name: freeName(agent, app.id, input.name),
      app,
      index,
      region: agent.host.region,
      instanceId: ulid(now),
      config: attachVolume(agent, id, app.id, input.config),
      image,
      life: newLife(rests(input) ? 'rest' : 'start'),
      cordoned: input.skip_service_registration === true,
      ready: false,
      ip4,
      run: 0,
      restarts: [],
      startWithHost: false,
      lastError: null,
      createdAt: now,
      updatedAt: now,
      changedAt: now,
      destroyedAt: null,
    }
    agent.store.machines.save(next)
    agent.store.history.addVersion(id, next.instanceId, next.config, now)
    const event: NewEvent = { type: 'launch', status: 'created', source: 'user' }
    agent.store.history.addEvent(id, { id: ulid(now), timestamp: now, ...event })
    return next
  })
  announce(agent, record)
  const ttlSeconds = input.lease_ttl ?? 0
  const { owner } = request
  const lease =
    ttlSeconds > 0 ? acquireLease(agent, id, { ttlSeconds, owner, description: '' }) : undefined
  beginLife(agent, record)
  return { record, ...(lease ? { lease } : {}) }
}

/** The first start, or the rest of one that is only parked: its image is fetched first, so that a start is quick. */
export function beginLife(agent: Agent, record: MachineRecord): void {
  const { id } = record
  if (record.life.after === 'start') {
    const start = operate(agent, id, () => {
      const now = agent.store.machines.get(id)
      if (now.life.state === 'created') apply(agent, now, { type: 'start' })
    })
    start.catch(() => {}) // Killed before it began.
    return
  }
  void agent.images
    .ensure(record.image)
    .catch((error: unknown) =>
      agent.log.warn({ machine: id, error: String(error) }, 'could not fetch an image ahead'),
    )
    .then(() =>
      operate(agent, id, () => {
        const now = agent.store.machines.get(id)
        if (now.life.state === 'created') apply(agent, now, { type: 'park' })
      }),
    )
    .catch(() => {}) // The host is going down: it is parked at the next start.
}

/** SEC-4, MCH-33. */
export function requireSecretsVersion(
  agent: Agent,
  request: Pick<HostCreate, 'input' | 'secrets'> & { app: { id: string } },
): void {
  const wanted = request.input.min_secrets_version ?? 0
  if (wanted === 0) return
  const here = Math.max(
    request.secrets?.version ?? 0,
    agent.store.secrets.get(request.app.id).version,
  )
  if (here < wanted) {
    throw new Fault(
      'precondition_failed',
      `secrets version ${wanted} is not on this host yet, it has ${here}; try again`,
    )
  }
}

function freeName(agent: Agent, app: string, wanted: string | null | undefined): string {
  const taken = new Set<string>()
  for (const record of agent.store.machines.all()) {
    if (record.app.id === app && record.destroyedAt === null) taken.add(record.name)
  }
  if (wanted) {
    if (!taken.has(wanted)) return wanted
    throw new Fault('name_taken', `the app already has a machine named ${wanted}; choose another`)
  }
  for (;;) {
    const name = generatedName()
    if (!taken.has(name)) return name
  }
}
