import { Fault } from '#core/fault.ts'
import type { Guest, MachineConfig } from './machine-config.ts'

export interface ResolvedGuest {
  cpus: number
  cpu_kind: 'shared' | 'performance'
  memory_mb: number
}

const cpuCounts = { shared: [1, 2, 4, 6, 8], performance: [1, 2, 4, 6, 8, 10, 12, 14, 16] } as const
const memoryPerCpu = {
  shared: { min: 256, max: 2048 },
  performance: { min: 2048, max: 8192 },
} as const

/** §2.8: preset name → guest. */
export const presets: ReadonlyMap<string, ResolvedGuest> = new Map(
  (['shared', 'performance'] as const).flatMap((kind) =>
    cpuCounts[kind].map((cpus): [string, ResolvedGuest] => [
      kind === 'shared' ? `shared-cpu-${cpus}x` : `performance-${cpus}x`,
      { cpus, cpu_kind: kind, memory_mb: cpus * memoryPerCpu[kind].min },
    ]),
  ),
)

/** MCH-61: the guest that a config asks for, with the default of one shared CPU and 256 MB. MCH-60: limits. */
export function resolveGuest(config: Pick<MachineConfig, 'guest' | 'size'>): ResolvedGuest & Guest {
  let base = presets.get('shared-cpu-1x') as ResolvedGuest
  if (config.size) {
    const preset = presets.get(config.size)
    if (!preset) {
      throw new Fault(
        'invalid',
        `unknown machine size "${config.size}"; known sizes: ${[...presets.keys()].join(', ')}`,
      )
    }
    base = preset
  }
  const kind = config.guest?.cpu_kind ?? base.cpu_kind
  const cpus = config.guest?.cpus ?? base.cpus
  const sameShape = kind === base.cpu_kind && cpus === base.cpus
  const fallback = sameShape ? base.memory_mb : cpus * memoryPerCpu[kind].min
  const memory = config.guest?.memory_mb ?? fallback
  if (!(cpuCounts[kind] as readonly number[]).includes(cpus)) {
    throw new Fault(
      'invalid',
      `a ${kind} machine has ${cpuCounts[kind].join(', ')} CPUs, not ${cpus}`,
    )
  }
  const { min, max } = memoryPerCpu[kind]
  if (memory < min * cpus || memory > max * cpus || memory % 256 !== 0) {
    throw new Fault(
      'invalid',
      `a machine with ${cpus} ${kind} CPUs takes ${min * cpus} to ${max * cpus} MB of memory in steps of 256 MB, not ${memory} MB`,
    )
  }
  return { ...config.guest, cpus, cpu_kind: kind, memory_mb: memory }
}
