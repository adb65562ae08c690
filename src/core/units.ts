import { Fault } from './fault.ts'

const unitMs: Record<string, number> = {
  ns: 1e-6,
  us: 1e-3,
  µs: 1e-3,
  ms: 1,
  s: 1000,
  m: 60_000,
  h: 3_600_000,
}

/** Parses a Go duration such as `1m30s` into milliseconds; undefined when the text is not one. TOML-5. */
export function parseGoDuration(text: string): number | undefined {
  const trimmed = text.trim()
  if (trimmed === '0') return 0
  const match = /^([+-]?)((?:\d+(?:\.\d*)?|\.\d+)(?:ns|us|µs|ms|s|m|h))+$/.exec(trimmed)
  if (!match) return undefined
  let total = 0
  for (const part of trimmed.matchAll(/(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)/g)) {
    total += Number(part[1]) * (unitMs[part[2] as string] as number)
  }
  return match[1] === '-' ? -total : total
}

/** Milliseconds as the shortest Go duration, `90000` → `1m30s`. */
export function formatGoDuration(ms: number): string {
  if (ms === 0) return '0s'
  if (ms < 1000) return `${ms}ms`
  const hours = Math.floor(ms / 3_600_000)
  const minutes = Math.floor((ms % 3_600_000) / 60_000)
  const seconds = (ms % 60_000) / 1000
  return `${hours ? `${hours}h` : ''}${hours || minutes ? `${minutes}m` : ''}${seconds}s`
}

/** A duration on the API wire: a Go duration string, or nanoseconds as a number. TOML-5. */
export function wireDurationMs(value: string | number): number {
  if (typeof value === 'number') return value / 1e6
  const ms = parseGoDuration(value)
  if (ms === undefined)
    throw new Fault('invalid', `"${value}" is not a duration; write it like "10s" or "1m30s"`)
  return ms
}

/** MB from `512`, `"512"`, `"512mb"`, `"1gb"`, case-insensitive. TOML-6. Undefined when it is not a size. */
export function parseSizeMb(value: string | number, bare: 'mb' | 'gb' = 'mb'): number | undefined {
  const match = /^(\d+)\s*(mb|mib|m|gb|gib|g)?$/i.exec(String(value).trim())
  if (!match) return undefined
  const unit = (match[2] ?? bare).toLowerCase()
  return Number(match[1]) * (unit.startsWith('g') ? 1024 : 1)
}
