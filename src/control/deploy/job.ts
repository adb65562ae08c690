import { z } from 'zod'
import type { Guest } from '#spec/machine-config.ts'
import type { FlyConfig } from '#spec/fly-toml.ts'

/**
 * How far a release has come. Machines are not in it: what has to be done to them is read from them again after a crash.
 * What cannot be read from them is: whether the release command ran, and how many machines a new group was to get.
 */
export const deployStepSchema = z.object({
  /** `secrets`: the same config again, for the newest secrets (SEC-3). */
  mode: z.enum(['deploy', 'secrets']),
  image: z.object({ ref: z.string(), digest: z.string() }),
  secretsVersion: z.int(),
  firstDeploy: z.boolean(),
  releaseCommand: z.enum(['todo', 'done']),
  /** The machine made for the release command; recorded before it is started, so that it never starts twice. */
  releaseMachine: z.string().optional(),
  /** Machines that each new group is to have, once that is decided. */
  create: z.record(z.string(), z.object({ machines: z.int(), standby: z.boolean() })).optional(),
})
export type DeployStep = z.infer<typeof deployStepSchema>

/** What one release is to bring about: complete, checked and free of the network. */
export interface DeployJob {
  releaseId: string
  releaseVersion: number
  config: FlyConfig
  image: { ref: string; digest: string }
  region: string
  strategy: 'rolling' | 'immediate'
  /** From 1: machines; below 1: their part. */
  maxUnavailable: number
  waitTimeoutMs: number
  releaseCommandTimeoutMs: number
  ha: boolean
  /** For new machines of a group that no `[[vm]]` speaks of. */
  guest: Guest | undefined
  secretsVersion: number
  hangarVersion: string
  /** The release began in another process that died: its leases may still be in force. */
  resumed: boolean
}

/** Metadata by which a deploy knows which secrets a machine was last given. */
export const secretsMetadataKey = 'hangar_secrets_version'
/** Names the machine that a new one stands in for. MCH-85. */
export const previousMetadataKey = 'fly_previous_alloc'

/** DEP-5, MCH-57. */
export const leaseTtlSeconds = 13
export const leaseRefreshMs = 4_000
