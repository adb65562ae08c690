import {
  belongsTo,
  ephemeralGroups,
  machineConfigFor,
  processGroups,
  releaseMetadataKeys,
} from '#spec/flatten.ts'
import type { MachineConfig, Mount } from '#spec/machine-config.ts'
import type { Machine } from '#spec/machine.ts'
import { secretsMetadataKey, type DeployJob, type DeployStep } from './job.ts'

/** MCH-85, DEP-2: the group of a machine that deploys manage; undefined for any other machine. */
export function managedGroup(machine: Machine): string | undefined {
  const { metadata } = machine.config
  if (metadata?.['fly_platform_version'] !== 'v2') return undefined
  const group = metadata['fly_process_group']
  return group && !ephemeralGroups.includes(group) ? group : undefined
}

/** DEP-6: a machine in one of these runs, or is meant to. */
const warmStates: readonly Machine['state'][] = [
  'starting',
  'started',
  'stopping',
  'restarting',
  'updating',
  'failed',
]

/**
 * Whether an update launches the machine. One that lies stopped because its command failed, or ended although it was to
 * serve, is launched too: a deploy is how people mend it. Standbys stay down (MCH-79).
 */
export function isWarm(machine: Machine): boolean {
  if (machine.config.standbys?.length) return false
  if (warmStates.includes(machine.state)) return true
  if (machine.state !== 'stopped' || machine.config.schedule) return false
  const last = machine.events.find((event) => event.type === 'exit')?.request?.exit_event
  if (!last || last.requested_stop) return false
  return last.exit_code !== 0 || !!machine.config.services?.length
}

/** Whether the machine takes traffic now, as far as its state and its checks tell. */
export const isServing = (machine: Machine): boolean =>
  machine.state === 'started' && machine.checks.every((check) => check.status === 'passing')

/** The config that a machine of the group is to have. `machine` is the one that gets it, when there is one. DEP-4. */
export function desiredConfig(
  job: DeployJob,
  mode: DeployStep['mode'],
  group: string,
  machine?: Machine,
): MachineConfig {
  const config =
    mode === 'secrets' && machine ? sameAgain(job, machine) : fromDefinition(job, group, machine)
  return {
    ...config,
    metadata: { ...config.metadata, [secretsMetadataKey]: String(job.secretsVersion) },
  }
}

function fromDefinition(job: DeployJob, group: string, machine?: Machine): MachineConfig {
  const config = machineConfigFor(job.config, group, {
    image: job.image.ref,
    releaseId: job.releaseId,
    releaseVersion: job.releaseVersion,
    hangarVersion: job.hangarVersion,
    base: machine?.config,
  })
  const guest = withoutGpu(config.guest ?? job.guest)
  const mounts = config.mounts?.map((mount) => withVolume(mount, machine?.config.mounts?.[0]))
  // MCH-79: a machine of a group that has services now stands by for nobody.
  const { standbys, ...rest } = config
  const standing = standbys?.length && !config.services?.length ? standbys : undefined
  return {
    ...rest,
    ...(guest ? { guest } : {}),
    ...(mounts ? { mounts } : {}),
    ...(standing
      ? { standbys: standing, env: { ...rest.env, FLY_STANDBY_FOR: standing.join(',') } }
      : {}),
  }
}

/** GPUs are accepted in a definition and have no effect. */
function withoutGpu(guest: MachineConfig['guest']): MachineConfig['guest'] {
  if (!guest) return guest
  const { gpus: _gpus, gpu_kind: _kind, ...rest } = guest
  return rest
}

/** A machine keeps its volume (MCH-32). */
const withVolume = (mount: Mount, old: Mount | undefined): Mount =>
  old?.volume ? { ...mount, volume: old.volume } : mount

function sameAgain(job: DeployJob, machine: Machine): MachineConfig {
  const { registry, repository, tag, digest } = machine.image_ref
  const pinned = `${registry}/${repository}${tag ? `:${tag}` : ''}@${digest}`
  return {
    ...machine.config,
    image: digest ? pinned : machine.config.image,
    metadata: {
      ...machine.config.metadata,
      fly_release_id: job.releaseId,
      fly_release_version: String(job.releaseVersion),
    },
  }
}

export type Verdict = 'same' | 'update' | 'replace'

/** What has to be done to bring a machine to the config: nothing, an update in place, or another machine (MCH-32). */
export function judge(
  job: DeployJob,
  mode: DeployStep['mode'],
  machine: Machine,
  desired: MachineConfig,
): Verdict {
  const old = machine.config.mounts ?? []
  const next = desired.mounts ?? []
  const moved = next.some((mount, index) => {
    const before = old[index]
    return before?.name && mount.name && before.name !== mount.name
  })
  if (old.length !== next.length || moved) return 'replace'
  const digest = mode === 'secrets' ? machine.image_ref.digest : job.image.digest
  if (machine.image_ref.digest !== digest) return 'update'
  return sameConfig(machine.config, desired) ? 'same' : 'update'
}

/** Equal but for the image, which the digest tells, and for what every release changes. */
export function sameConfig(a: MachineConfig, b: MachineConfig): boolean {
  return JSON.stringify(canonical(bare(a))) === JSON.stringify(canonical(bare(b)))
}

function bare(config: MachineConfig): object {
  const metadata = { ...config.metadata }
  for (const key of releaseMetadataKeys) delete metadata[key]
  if (metadata[secretsMetadataKey] === '0') delete metadata[secretsMetadataKey]
  return { ...config, image: '', metadata }
}

/** Keys in order; null, empty lists and empty objects count as absent. */
function canonical(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(canonical)
  if (typeof value !== 'object' || value === null) return value
  const entries = Object.entries(value)
    .map(([key, item]): [string, unknown] => [key, canonical(item)])
    .filter(([, item]) => !isEmpty(item))
  return Object.fromEntries(entries.toSorted(([a], [b]) => (a < b ? -1 : 1)))
}

const isEmpty = (value: unknown): boolean =>
  value === null ||
  value === undefined ||
  (typeof value === 'object' && Object.keys(value).length === 0)

/** DEP-3: how many machines a group gets when it is new. */
export function newGroupSize(
  job: DeployJob,
  group: string,
): { machines: number; standby: boolean } {
  const { config } = job
  const has = (sections: { processes?: string[] | undefined }[] | undefined) =>
    (sections ?? []).some((section) => belongsTo(config, group, section))
  if (!job.ha || has(config.mounts)) return { machines: 1, standby: false }
  const services = has(config.services) || has(config.http_service && [config.http_service])
  return services ? { machines: 2, standby: false } : { machines: 1, standby: true }
}

export const jobGroups = (job: DeployJob): string[] => processGroups(job.config)

/** §1.4: machines of `total` that may be out at once. */
export function unavailableMax(job: DeployJob, total: number): number {
  const { maxUnavailable } = job
  const count = maxUnavailable >= 1 ? Math.floor(maxUnavailable) : Math.ceil(total * maxUnavailable)
  return Math.max(1, Math.min(total, count))
}
