import { availableParallelism, totalmem } from 'node:os'
import { Fault } from '#core/fault.ts'
import { resolveGuest, type ResolvedGuest } from '#spec/guest-size.ts'
import type { HostInfo } from '#spec/host-api.ts'
import type { Agent } from './agent.ts'
import { restsOnDisk } from './runtime-choice.ts'

const megabyte = 1024 * 1024
/** MCH-62: a shared CPU is a sixteenth of one. */
const sharedPerCpu = 16

/** Each real CPU is promised `cpuOvercommit` times: who is busy at the same moment shares it. Memory is never promised twice. */
export const capacityOf = (cpuOvercommit: number): HostInfo['capacity'] => ({
  cpus: availableParallelism() * cpuOvercommit,
  memory_mb: Math.floor(totalmem() / megabyte),
})

/** What the machines that are up hold; a stopped one holds nothing (MCH-34), nor one whose memory is on the disk (MCH-43). */
export function used(agent: Agent): HostInfo['used'] {
  let cpus = 0
  let memory_mb = 0
  let machines = 0
  for (const record of agent.store.machines.all()) {
    if (record.destroyedAt !== null) continue
    machines++
    if (['created', 'stopped', 'failed'].includes(record.life.state)) continue
    if (restsOnDisk(agent, record)) continue
    const guest = resolveGuest(record.config)
    cpus += guest.cpu_kind === 'shared' ? guest.cpus / sharedPerCpu : guest.cpus
    memory_mb += guest.memory_mb
  }
  return { cpus: Math.ceil(cpus), memory_mb, machines }
}

/** @throws Fault `insufficient_capacity` in the words that clients look for (MCH-3) */
export function checkCapacity(agent: Agent, guest: ResolvedGuest): void {
  const free = agent.host.capacity.memory_mb - used(agent).memory_mb
  if (guest.memory_mb > free) {
    throw new Fault(
      'insufficient_capacity',
      `could not reserve resource for machine: insufficient memory available to fulfill request: it needs ${guest.memory_mb} MB, the host has ${Math.max(0, free)} MB free`,
    )
  }
}
