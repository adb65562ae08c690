import { createHash } from 'node:crypto'
import { accessSync, constants } from 'node:fs'
import { cpus, release } from 'node:os'
import { join } from 'node:path'
import { z } from 'zod'
import { readJsonFile, writeFileAtomic } from '#sys/files.ts'
import { bootId } from '../machine-folder.ts'
import type { Accel } from './qemu-args.ts'

/** Everything that what boots here depends on: when any of it changes it is tried again. */
export interface Circumstances {
  /** QEMU's own words. */
  version: string
  /** Of the guests' kernel and initramfs together. */
  kernelDigest: string
  /** What is tried, in this order, and each with its command line. */
  tried: { accel: Accel; args: string[] }[]
  hostKernel: string
  /** Of this boot of the host. A copy of a running host has the same one, on another processor. */
  bootId: string
  processor: string
  /** A module that is loaded later makes another answer. */
  kvmOpens: boolean
}

const verdictSchema = z.object({
  accel: z.enum(['kvm', 'tcg']),
  note: z.string(),
  /** For TCG: how fast this host's processor counts. */
  tscKhz: z.int().nonnegative().optional(),
})
export type Verdict = z.infer<typeof verdictSchema>

export const processorModel = (): string => cpus()[0]?.model ?? 'unknown'

function kvmOpens(): boolean {
  try {
    accessSync('/dev/kvm', constants.R_OK | constants.W_OK)
    return true
  } catch {
    return false
  }
}

/** With what is true of the host now. */
export const circumstances = (
  given: Pick<Circumstances, 'version' | 'kernelDigest' | 'tried'>,
): Circumstances => ({
  ...given,
  hostKernel: release(),
  bootId,
  processor: processorModel(),
  kvmOpens: kvmOpens(),
})

/** The same for the same circumstances, whatever their order in memory. */
export function verdictKey(found: Circumstances): string {
  const { version, kernelDigest, tried, hostKernel, processor } = found
  const all = [version, kernelDigest, tried, hostKernel, found.bootId, processor, found.kvmOpens]
  return createHash('sha256').update(JSON.stringify(all)).digest('hex')
}

const fileOf = (cacheDir: string) => join(cacheDir, 'probe.json')
const keptSchema = verdictSchema.extend({ key: z.string() })

/** Undefined when nothing was tried under these circumstances, or not all was kept of it. */
export function readVerdict(cacheDir: string, key: string): Verdict | undefined {
  const kept = keptSchema.safeParse(readJsonFile(fileOf(cacheDir))).data
  if (kept?.key !== key || (kept.accel === 'tcg' && kept.tscKhz === undefined)) return undefined
  return kept
}

export const keepVerdict = (cacheDir: string, key: string, verdict: Verdict): void =>
  writeFileAtomic(fileOf(cacheDir), JSON.stringify({ key, ...verdict }))
