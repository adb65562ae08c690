import { Fault } from '#core/fault.ts'
import { wireDurationMs } from '#core/units.ts'
import { machineConfigFor, processGroups, releaseCommandConfig } from '#spec/flatten.ts'
import { parseDefinition, type FlyConfig } from '#spec/fly-toml.ts'
import { resolveGuest } from '#spec/guest-size.ts'
import { guestSchema, type Guest } from '#spec/machine-config.ts'
import { regionCodePattern } from '#spec/regions.ts'
import type { DeployInput } from '#spec/release.ts'
import manifest from '../../../package.json' with { type: 'json' }
import type { ControlContext } from '../context.ts'
import type { DeployJob, DeployStep } from './job.ts'

/** §1.4. */
const defaults = {
  maxUnavailable: 0.33,
  waitTimeoutMs: 5 * 60_000,
  releaseCommandTimeoutMs: 5 * 60_000,
} as const

export interface CheckedDeploy {
  config: FlyConfig
  region: string
  strategy: DeployJob['strategy']
  guest: Guest | undefined
}

/**
 * TOML-8: everything about a deploy that can be told before anything changes. Faults: `invalid` with every complaint
 * about the definition; `not_available_yet` for a strategy that has to wait.
 */
export function checkDeploy(
  ctx: Pick<ControlContext, 'settings' | 'hosts'>,
  input: DeployInput,
): CheckedDeploy {
  const parsed = parseDefinition(input.definition)
  if (!parsed.ok) {
    const messages = parsed.errors.map((error) => error.message)
    throw new Fault('invalid', `the app's configuration is not valid:\n${messages.join('\n')}`)
  }
  const region = regionOf(ctx, input, parsed.config)
  const config: FlyConfig = {
    ...parsed.config,
    primary_region: region,
    env: { ...parsed.config.env, ...input.env },
  }
  const strategy = input.strategy || config.deploy?.strategy || 'rolling'
  if (strategy !== 'rolling' && strategy !== 'immediate') {
    throw new Fault(
      'not_available_yet',
      `deploy strategy "${strategy}" is not available yet; use "rolling" or "immediate", in [deploy] or with --strategy`,
    )
  }
  const guest = guestOf(input)
  const words = { image: 'checked', releaseId: '', releaseVersion: 0, hangarVersion: '' }
  for (const group of processGroups(config)) machineConfigFor(config, group, words)
  releaseCommandConfig(config, words)
  return { config, region, strategy, guest }
}

function regionOf(
  ctx: Pick<ControlContext, 'settings' | 'hosts'>,
  input: DeployInput,
  config: FlyConfig,
): string {
  const known = [
    ...new Set([...ctx.settings.regions, ...ctx.hosts.list().map(({ row }) => row.region)]),
  ]
  const wanted = input.primary_region || config.primary_region || known[0] || ''
  if (regionCodePattern.test(wanted) && known.includes(wanted)) return wanted
  throw new Fault(
    'invalid',
    `primary_region "${wanted}" has no host in this cloud; its regions: ${known.toSorted().join(', ')}. Set primary_region in fly.toml or give --primary-region`,
  )
}

function guestOf(input: DeployInput): Guest | undefined {
  if (!input.guest) return undefined
  const parsed = guestSchema.safeParse(input.guest)
  if (!parsed.success) {
    const issue = parsed.error.issues[0]
    throw new Fault('invalid', `guest.${issue?.path.join('.')}: ${issue?.message}`)
  }
  return resolveGuest({ guest: parsed.data })
}

/** The job that a release's record stands for; the same again after a crash. */
export function jobOf(
  ctx: Pick<ControlContext, 'settings' | 'hosts'>,
  of: {
    release: { id: string; version: number }
    input: DeployInput
    step: DeployStep
    resumed: boolean
  },
): DeployJob {
  const { input, step } = of
  const { config, region, strategy, guest } = checkDeploy(ctx, input)
  const deploy = config.deploy
  const timeMs = (value: string | undefined, fallback: number) =>
    value === undefined ? fallback : wireDurationMs(value)
  return {
    releaseId: of.release.id,
    releaseVersion: of.release.version,
    config,
    image: step.image,
    region,
    strategy,
    maxUnavailable: deploy?.max_unavailable ?? defaults.maxUnavailable,
    waitTimeoutMs: input.wait_timeout_ms ?? timeMs(deploy?.wait_timeout, defaults.waitTimeoutMs),
    releaseCommandTimeoutMs:
      input.release_command_timeout_ms ??
      timeMs(deploy?.release_command_timeout, defaults.releaseCommandTimeoutMs),
    ha: input.ha ?? true,
    guest,
    secretsVersion: step.secretsVersion,
    hangarVersion: manifest.version,
    resumed: of.resumed,
  }
}
