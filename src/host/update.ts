import { Fault } from '#core/fault.ts'
import { ulid } from '#core/ids.ts'
import type { HostUpdate, ResolvedImage } from '#spec/host-api.ts'
import type { MachineConfig } from '#spec/machine-config.ts'
import { apply, type Agent } from './agent.ts'
import { checkConfig, haltFor } from './config-rules.ts'
import { requireSecretsVersion } from './create.ts'
import { checkKeptRoot, endsRoot } from './kept-root.ts'
import { requireLease } from './leases.ts'
import type { Halt } from './machine-life.ts'
import type { MachineRecord } from './store/index.ts'
import type { Caller } from './verbs.ts'
import { keepVolume } from './volume-attach.ts'
import { operate } from './work.ts'

const up: readonly string[] = ['started', 'starting', 'restarting', 'updating']

/** MCH-30: a compare-and-set on the version, when the caller asks for one. */
function requireVersion(record: MachineRecord, wanted: string | null | undefined): void {
  if (wanted && wanted !== record.instanceId) {
    throw new Fault(
      'precondition_failed',
      `machine ${record.id} is at version ${record.instanceId}, not ${wanted}; read it again and repeat the change`,
    )
  }
}

/** MCH-32. */
function requireSameVolume(record: MachineRecord, config: MachineConfig): void {
  const [before] = record.config.mounts ?? []
  const [after] = config.mounts ?? []
  const same = before?.volume === (after?.volume ?? (after ? before?.volume : undefined))
  if (Boolean(before) !== Boolean(after) || !same) {
    throw new Fault(
      'invalid',
      `an update cannot add, remove or change the volume of machine ${record.id}; create a new machine instead`,
    )
  }
}

async function imageFor(agent: Agent, record: MachineRecord, ref: string): Promise<ResolvedImage> {
  // A reference with a digest means the same for ever: no registry is asked about what is known.
  const pinned = ref.includes('@sha256:')
  if (pinned && (ref === record.image.ref || ref === record.config.image)) return record.image
  return agent.images.resolve(ref)
}

/**
 * MCH-30…33: replaces the whole config and makes a new version. The new image is fetched while the old version still
 * serves; resolves once the update is written down.
 */
export async function updateMachine(
  agent: Agent,
  id: string,
  by: Caller,
  request: HostUpdate,
): Promise<MachineRecord> {
  const { input } = request
  const before = agent.store.machines.get(id)
  if (before.destroyedAt !== null)
    throw new Fault('not_found', `machine not found: ${id} is destroyed`)
  requireLease(agent, id, by.nonce)
  requireVersion(before, input.current_version)
  requireSameVolume(before, input.config)
  checkConfig(input.config)
  checkKeptRoot(before, input.config)
  requireSecretsVersion(agent, { ...request, app: before.app })
  const image = await imageFor(agent, before, input.config.image)
  await agent.images.ensure(image)
  const begin = () => {
    const record = agent.store.machines.get(id)
    requireLease(agent, id, by.nonce)
    requireVersion(record, input.current_version)
    checkKeptRoot(record, input.config)
    return beginUpdate(agent, record, { by, request, image })
  }
  return operate(agent, id, begin, 'soft')
}

function beginUpdate(
  agent: Agent,
  record: MachineRecord,
  how: { by: Caller; request: HostUpdate; image: ResolvedImage },
): MachineRecord {
  const { input, secrets } = how.request
  const standby = Boolean(input.config.standbys?.length)
  // MCH-79: who stood by rests on, also when it is told to stand by no more.
  const rests = input.skip_launch === true || Boolean(record.config.standbys?.length)
  // MCH-31: what was up comes up again; what was not is started unless the caller says otherwise.
  const launch = !standby && (up.includes(record.life.state) || !rests)
  const frozen = record.life.state === 'suspended'
  const halt: Halt = frozen
    ? { signal: 'SIGKILL', timeoutMs: 0, drain: false }
    : haltFor(record.config)
  const now = agent.clock.now()
  const instanceId = ulid(now)
  const config = keepVolume(agent, record, input.config)
  return agent.store.transaction(() => {
    if (secrets) agent.store.secrets.put(record.app.id, secrets)
    agent.store.history.addVersion(record.id, instanceId, config, now)
    return apply(
      agent,
      record,
      { type: 'update', halt, launch, newRoot: endsRoot(record.config, config) },
      {
        patch: {
          instanceId,
          config,
          image: how.image,
          cordoned: input.skip_service_registration === true,
          restarts: [],
          startWithHost: false,
          lastError: null,
        },
        events: [{ type: 'update', status: 'updating', source: how.by.source }],
      },
    )
  })
}
