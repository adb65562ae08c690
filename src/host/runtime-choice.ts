import { resolveGuest } from '#spec/guest-size.ts'
import type { HostInfo } from '#spec/host-api.ts'
import type { MachineConfig } from '#spec/machine-config.ts'
import { runtimeWishOf, type MachineRuntime, type RuntimeKind } from '#spec/runtime.ts'
import type { DriverCapabilities } from '#host/runtime/index.ts'
import { commit, type Agent } from './agent.ts'
import { keptRootIn, requireSameRuntime } from './kept-root.ts'
import type { MachineRecord } from './store/index.ts'

/**
 * What the machine runs in from its next start, written down before it is started: a process that runs is found by it.
 * Where nothing is asked for, a machine that keeps its root stays where that is.
 * @throws Fault `native_failed` when what was asked for cannot work here; a weaker wall is never taken instead. Fault
 * `invalid` when it would leave its root behind
 */
export async function settleRuntime(agent: Agent, id: string): Promise<MachineRecord> {
  const before = agent.store.machines.get(id)
  requireSameRuntime(before)
  const kind = await agent.runtimes.choose(keptRootIn(before) ?? runtimeWishOf(before.config))
  const accel = agent.runtimes.verdict(kind)?.accel ?? null
  // Read again: the choice may have waited for a guest to boot.
  const record = agent.store.machines.get(id)
  const { runtime } = record
  if (runtime?.kind === kind && runtime.accel === accel) return record
  return commit(agent, record, { patch: { runtime: { kind, accel } }, durability: 'crash' })
}

/** Machines of before there was a choice are containers. */
export const kindOf = (record: MachineRecord): RuntimeKind => record.runtime?.kind ?? 'container'

/** What can be done with the machine as it runs, or rests, now. */
export const capabilitiesOf = (agent: Agent, record: MachineRecord): DriverCapabilities =>
  agent.runtimes.capabilities(kindOf(record))

/** A machine whose memory is on the disk holds none of its host's; a frozen one still has it. */
export const restsOnDisk = (agent: Agent, record: MachineRecord): boolean =>
  record.life.state === 'suspended' && capabilitiesOf(agent, record).suspend === 'snapshot'

const mightRun = ['created', 'stopped', 'failed']

/** Which wall a machine is behind; of one that rests, behind which its next start puts it. Undefined until that is known. */
export function presentRuntime(agent: Agent, record: MachineRecord): MachineRuntime | undefined {
  const next = keptRootIn(record) ?? agent.runtimes.expect(runtimeWishOf(record.config))
  const kind = mightRun.includes(record.life.state) ? next : kindOf(record)
  if (!kind) return undefined
  const { isolation } = agent.runtimes.capabilities(kind)
  const known = record.runtime?.kind === kind ? record.runtime.accel : undefined
  const accel = known ?? agent.runtimes.verdict(kind)?.accel ?? null
  return { kind, accel, isolation, note: noteOf(isolation, accel) }
}

function noteOf(isolation: MachineRuntime['isolation'], accel: MachineRuntime['accel']): string {
  if (isolation === 'vm') {
    const pace = accel === 'tcg' ? ', played by a program (TCG): several times slower' : ''
    return `a VM with a kernel of its own${pace}`
  }
  return isolation === 'container'
    ? "a container: it shares its host's kernel, a weaker wall than a VM"
    : 'nothing keeps it apart'
}

/** What the host says of itself. */
export function describeRuntime({
  runtimes,
}: Agent): Pick<HostInfo, 'runtime' | 'runtime_note' | 'accel' | 'isolation'> {
  const { usual, note } = runtimes
  if (!usual) return { runtime: 'auto', runtime_note: note }
  const accel = runtimes.verdict(usual)?.accel
  const { isolation } = runtimes.capabilities(usual)
  return { runtime: usual, runtime_note: note, isolation, ...(accel ? { accel } : {}) }
}

/** MCH-40. Why a machine of this config cannot be suspended where its runtime can do `suspend`; undefined when it can be. */
export function suspendHindrance(
  config: MachineConfig,
  { suspend }: Pick<DriverCapabilities, 'suspend'>,
): string | undefined {
  const { memory_mb } = resolveGuest(config)
  if (suspend === 'none') return 'its runtime cannot'
  if (memory_mb > suspendMemoryMbMax) {
    return `it has ${memory_mb} MB of memory and at most ${suspendMemoryMbMax} MB can be suspended`
  }
  if (config.init?.swap_size_mb) return 'it has swap'
  if (config.guest?.gpus) return 'it has a GPU'
  return config.schedule ? 'it has a schedule' : undefined
}

const suspendMemoryMbMax = 2048
