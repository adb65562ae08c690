import { Fault } from '#core/fault.ts'
import { resolveGuest, type ResolvedGuest } from '#spec/guest-size.ts'
import { machineInputSchema, type MachineInput } from '#spec/machine.ts'
import type { z } from 'zod'
import type { AppRecord } from '../apps/index.ts'

/** The first thing wrong, with its path as the client wrote it: `config.guest.cpus: …`. */
export function describeIssue(error: z.ZodError): string {
  const issue = error.issues[0]
  const path = issue?.path.map(String).join('.') ?? ''
  return path === '' ? (issue?.message ?? 'invalid input') : `${path}: ${issue?.message}`
}

export interface CheckedInput {
  /** As the client wrote it: `config` is the very object that came in (MCH-39). */
  input: MachineInput
  guest: ResolvedGuest
}

/**
 * Everything about a machine's input that can be told without asking anybody. Faults: `invalid`; `precondition_failed` when
 * the secrets are older than `min_secrets_version` asks for (MCH-33).
 */
export function checkMachineInput(
  app: Pick<AppRecord, 'name' | 'secretsVersion'>,
  raw: unknown,
): CheckedInput {
  const parsed = machineInputSchema.safeParse(raw)
  if (!parsed.success) throw new Fault('invalid', describeIssue(parsed.error))
  const config = (raw as { config: MachineInput['config'] }).config
  const guest = resolveGuest(config)
  if ((config.guest?.gpus ?? 0) > 0 || config.guest?.gpu_kind) {
    throw new Fault('not_available_yet', 'machines with a GPU are not available yet')
  }
  for (const mount of config.mounts ?? []) {
    if (!mount.volume) {
      throw new Fault(
        'invalid',
        `config.mounts: the mount at ${mount.path} needs "volume", the id of a volume of app ${app.name}`,
      )
    }
  }
  const wanted = parsed.data.min_secrets_version ?? 0
  if (wanted > app.secretsVersion) {
    throw new Fault(
      'precondition_failed',
      `app ${app.name} has secrets version ${app.secretsVersion}, older than min_secrets_version ${wanted}`,
    )
  }
  return { input: { ...parsed.data, config }, guest }
}
