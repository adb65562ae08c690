import { Fault } from '#core/fault.ts'
import { limits } from '#core/limits.ts'
import { wireDurationMs } from '#core/units.ts'
import { resolveGuest } from '#spec/guest-size.ts'
import type { MachineConfig } from '#spec/machine-config.ts'
import { rootGbOf, rootPersistOf } from '#spec/rootfs.ts'
import { runtimeMetadataKey, runtimeWishSchema } from '#spec/runtime.ts'
import { decodeFile } from './hooks/files.ts'
import type { Halt } from './machine-life.ts'

const invalid = (message: string) => new Fault('invalid', message)

/** What the shape of a config cannot say. @throws Fault `invalid` that names the key and what to write instead */
export function checkConfig(config: MachineConfig): void {
  resolveGuest(config)
  for (const file of config.files ?? []) {
    const sources = [file.raw_value, file.secret_name].filter(
      (value) => value !== undefined && value !== null,
    )
    if (sources.length !== 1) {
      throw invalid(`the file ${file.guest_path} needs exactly one of raw_value and secret_name`)
    }
    if (file.raw_value) decodeFile(file.raw_value, `raw_value of ${file.guest_path}`)
  }
  for (const [name, check] of Object.entries(config.checks ?? {})) {
    if (check.interval && wireDurationMs(check.interval) < 2_000) {
      throw invalid(`checks.${name}.interval must be at least 2s`)
    }
    if (check.timeout && wireDurationMs(check.timeout) > 60_000) {
      throw invalid(`checks.${name}.timeout must be at most 60s`)
    }
    if (!check.port && !config.services?.length) throw invalid(`checks.${name} needs a port`)
  }
  rootGbOf(config)
  rootPersistOf(config)
  checkRuntimeWish(config.metadata?.[runtimeMetadataKey])
  const keys = Object.keys(config.metadata ?? {}).length
  if (keys > limits.metadataKeysMax) {
    throw invalid(`a machine has at most ${limits.metadataKeysMax} metadata keys, not ${keys}`)
  }
}

/** @throws Fault `invalid` for what no runtime is called */
export function checkRuntimeWish(wish: string | undefined): void {
  if (wish === undefined || runtimeWishSchema.safeParse(wish).success) return
  throw invalid(
    `metadata ${runtimeMetadataKey} is "${wish}"; it is ${runtimeWishSchema.options.join(', ')}`,
  )
}

const stopTimeoutDefaultMs = 5_000

/** MCH-35: the request, then the config, then SIGINT and 5 s. Clients that name no timeout send `0s`. */
export function haltFor(
  config: MachineConfig,
  request: {
    signal?: string | null | undefined
    timeout?: string | number | null | undefined
  } = {},
): Halt {
  const signal = request.signal || config.stop_config?.signal || 'SIGINT'
  const configured = config.stop_config?.timeout
  const usual =
    configured === undefined || configured === null
      ? stopTimeoutDefaultMs
      : wireDurationMs(configured)
  const wanted = wireDurationMs(request.timeout ?? 0) || usual
  const timeoutMs = Math.min(wanted, limits.killTimeoutSecondsMax * 1000)
  // A SIGKILL needs no second one after a grace.
  return { signal, timeoutMs: signal === 'SIGKILL' ? 0 : timeoutMs, drain: true }
}
