import { Fault } from '#core/fault.ts'
import { parseSizeMb } from '#core/units.ts'
import { resolveGuest, type ResolvedGuest } from '#spec/guest-size.ts'
import type { FlagValues } from './command.ts'

/** The guest that the `--vm-*` flags ask for, undefined when none was given. MCH-60, MCH-61. */
export function guestOfFlags(flags: FlagValues): ResolvedGuest | undefined {
  const size = flags.text('vm-size')
  const memory = flags.text('vm-memory')
  const cpus = flags.number('vm-cpus')
  const kind = flags.text('vm-cpu-kind')
  if (size === undefined && memory === undefined && cpus === undefined && kind === undefined) {
    return undefined
  }
  const memoryMb = memory === undefined ? undefined : parseSizeMb(memory)
  if (memory !== undefined && memoryMb === undefined) {
    throw new Fault('bad_request', `--vm-memory "${memory}" is no size; write 512, 512mb or 1gb`)
  }
  if (kind !== undefined && kind !== 'shared' && kind !== 'performance') {
    throw new Fault('bad_request', `--vm-cpu-kind is shared or performance, not "${kind}"`)
  }
  const { cpu_kind, ...rest } = resolveGuest({
    ...(size ? { size } : {}),
    guest: {
      ...(cpus === undefined ? {} : { cpus }),
      ...(kind === undefined ? {} : { cpu_kind: kind }),
      ...(memoryMb === undefined ? {} : { memory_mb: memoryMb }),
    },
  })
  return { cpus: rest.cpus, cpu_kind, memory_mb: rest.memory_mb }
}

/** `shared-cpu-1x, 1GB memory`, as in a launch plan. */
export function describeGuest(guest: ResolvedGuest): string {
  const size = guest.cpu_kind === 'performance' ? 'performance' : 'shared-cpu'
  const memory =
    guest.memory_mb % 1024 === 0 ? `${guest.memory_mb / 1024}GB` : `${guest.memory_mb}MB`
  return `${size}-${guest.cpus}x, ${memory} memory`
}

/** A duration flag in ms: `5m`, `90s`, or seconds as a number. */
export function durationFlag(
  flags: FlagValues,
  name: string,
  parse: (text: string) => number | undefined,
): number | undefined {
  const text = flags.text(name)
  if (text === undefined) return undefined
  const ms = /^\d+(\.\d+)?$/.test(text) ? Number(text) * 1000 : parse(text)
  if (ms !== undefined && ms >= 0) return Math.round(ms)
  throw new Fault('bad_request', `--${name} "${text}" is no duration; write 90s or 5m`)
}
