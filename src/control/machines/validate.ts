import { Fault } from '#core/fault.ts'
import { limits } from '#core/limits.ts'
import { resolveGuest, type ResolvedGuest } from '#spec/guest-size.ts'
import { machineInputSchema, type MachineInput } from '#spec/machine.ts'
import type { z } from 'zod'
import { findApp, type AppRecord } from '../apps/index.ts'
import type { ControlContext } from '../context.ts'

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
  checkSizes(config)
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

function checkSizes(config: MachineInput['config']): void {
  const sizes = [
    ['config', config, limits.configBytesMax],
    ['config.services', config.services, limits.servicesBytesMax],
  ] as const
  for (const [what, value, bytesMax] of sizes) {
    const bytes = Buffer.byteLength(JSON.stringify(value ?? null))
    if (bytes <= bytesMax) continue
    throw new Fault('too_large', `${what} is ${bytes} bytes of JSON, more than ${bytesMax}`)
  }
}

/**
 * SEC-20: hosts may pull anything from this cloud's registry, so who asks for an image of it is checked here: the app
 * whose image it is must belong to the same organization. Fault `forbidden`.
 */
export async function checkImageAccess(
  ctx: Pick<ControlContext, 'db' | 'settings'>,
  app: Pick<AppRecord, 'org'>,
  image: string,
): Promise<void> {
  const repository = ownRepository(ctx, image)
  if (repository === undefined) return
  const owner = await findApp(ctx, repository)
  if (owner?.org.id === app.org.id) return
  throw new Fault(
    'forbidden',
    `image ${image} belongs to no app of organization ${app.org.slug}; deploy one of its own apps' images`,
  )
}

/** The repository, which is an app's name, of an image in this cloud's own registry; undefined for any other image. */
export function ownRepository(
  ctx: Pick<ControlContext, 'settings'>,
  image: string,
): string | undefined {
  const prefix = `${ctx.settings.registry_host}/`
  if (!image.startsWith(prefix)) return undefined
  return image.slice(prefix.length).split('@')[0]?.split(':')[0]
}
