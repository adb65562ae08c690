import { z } from 'zod'
import { formatGoDuration, parseGoDuration } from '#core/units.ts'

/**
 * The kinds of value in fly.toml. Each takes what a person may write, in any of its spellings, and gives the one form
 * that the rest of the program sees; its complaint reads after the key: `http_service.internal_port must be …`.
 */

type Complain = (message: string) => never

function field<T>(read: (value: unknown, complain: Complain) => T) {
  return z.unknown().transform((value, context): T => {
    try {
      return read(value, (message) => {
        throw new Complaint(message)
      })
    } catch (error) {
      if (!(error instanceof Complaint)) throw error
      context.addIssue({ code: 'custom', message: error.message })
      return z.NEVER
    }
  })
}

class Complaint extends Error {}

/** How a wrong value is quoted back: short, and never the whole of a large section. */
export function shown(value: unknown): string {
  if (value === undefined) return 'nothing'
  if (Array.isArray(value)) return 'a list'
  if (typeof value === 'object' && value !== null) return 'a section'
  const text = JSON.stringify(value)
  return text.length > 60 ? `${text.slice(0, 57)}…"` : text
}

export const text = field((value, complain) => {
  if (value === undefined) complain('is missing')
  return typeof value === 'string' ? value : complain(`must be a string, not ${shown(value)}`)
})

/** TOML-7: a whole number, also as a string of digits. */
export const whole = (range: { min: number; max: number }) =>
  field((value, complain) => {
    if (value === undefined) complain('is missing')
    const number = typeof value === 'string' && /^\d+$/.test(value) ? Number(value) : value
    if (typeof number !== 'number' || !Number.isSafeInteger(number)) {
      return complain(`must be ${rangeText(range)}, not ${shown(value)}`)
    }
    if (number < range.min || number > range.max) {
      return complain(`must be ${rangeText(range)}, not ${number}`)
    }
    return number
  })

const rangeText = ({ min, max }: { min: number; max: number }) =>
  max === Number.MAX_SAFE_INTEGER
    ? `a whole number from ${min}`
    : `a whole number from ${min} to ${max}`

export const port = whole({ min: 1, max: 65_535 })
export const count = whole({ min: 0, max: Number.MAX_SAFE_INTEGER })

export const flag = field((value, complain) =>
  typeof value === 'boolean' ? value : complain(`must be true or false, not ${shown(value)}`),
)

/** Above 0: a count of machines from 1, below 1 a part of them. */
export const positive = field((value, complain) =>
  typeof value === 'number' && value > 0 && Number.isFinite(value)
    ? value
    : complain(`must be a number above 0, not ${shown(value)}`),
)

export const oneOf = <const T extends string>(choices: readonly T[]) =>
  field((value, complain): T => {
    const found = choices.find((choice) => choice === value)
    if (found !== undefined) return found
    const list = choices
      .filter((choice) => choice !== '')
      .map((choice) => `"${choice}"`)
      .join(', ')
    return value === undefined
      ? complain(`is missing; choose one of ${list}`)
      : complain(`must be one of ${list}, not ${shown(value)}`)
  })

export const words = field((value, complain) => {
  const list = typeof value === 'string' ? [value] : value
  if (!Array.isArray(list)) return complain(`must be a list of strings, not ${shown(value)}`)
  const wrong: unknown = list.find((item) => typeof item !== 'string')
  if (wrong !== undefined) return complain(`must be a list of strings, and ${shown(wrong)} is none`)
  return list as string[]
})

/** String → string; numbers and booleans are taken as their text, TOML-7. */
export const textMap = field((value, complain) => {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    return complain(`must be a section of strings, not ${shown(value)}`)
  }
  for (const [key, item] of Object.entries(value)) {
    if (typeof item === 'object') {
      return complain(`must hold strings, and ${key} is ${shown(item)}`)
    }
  }
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, String(item)]))
})

/** TOML-5: a Go duration, or a bare number in the unit of its section; the result is a Go duration. */
export const duration = (bare: 'ms' | 's', range: { maxMs?: number; minMs?: number } = {}) =>
  field((value, complain) => {
    const milliseconds =
      typeof value === 'number' && Number.isInteger(value)
        ? value * (bare === 's' ? 1000 : 1)
        : typeof value === 'string'
          ? parseGoDuration(value)
          : undefined
    if (milliseconds === undefined || milliseconds < 0) {
      return complain(`must be a duration such as "10s" or "1m30s", not ${shown(value)}`)
    }
    if (range.maxMs !== undefined && milliseconds > range.maxMs) {
      return complain(`must be at most ${formatGoDuration(range.maxMs)}, not ${shown(value)}`)
    }
    if (range.minMs !== undefined && milliseconds < range.minMs) {
      return complain(`must be at least ${formatGoDuration(range.minMs)}, not ${shown(value)}`)
    }
    return formatGoDuration(milliseconds)
  })

const sizeUnitsMb: Record<string, number> = {
  '': 0,
  b: 2 ** -20,
  k: 2 ** -10,
  m: 1,
  g: 1024,
  t: 2 ** 20,
}

/** TOML-6: megabytes, or whole gigabytes, from a bare number or a number with a unit. */
export const size = (unit: 'mb' | 'gb') =>
  field((value, complain) => {
    const match = /^(\d+(?:\.\d+)?)\s*(?:(b|[kmgt])i?b?)?$/i.exec(String(value).trim())
    if (!match || (typeof value !== 'string' && typeof value !== 'number')) {
      return complain(`must be a size such as "512mb" or "1gb", not ${shown(value)}`)
    }
    const letter = (match[2] ?? unit[0] ?? '').toLowerCase()
    const megabytes = Number(match[1]) * (sizeUnitsMb[letter] ?? 0)
    return Math.floor(unit === 'gb' ? megabytes / 1024 : megabytes)
  })

/** `true` and `false` are older spellings of stop and off. */
export const autostop = field((value, complain): 'off' | 'stop' | 'suspend' => {
  if (typeof value === 'boolean') return value ? 'stop' : 'off'
  if (value === 'off' || value === 'stop' || value === 'suspend') return value
  return complain(`must be "off", "stop" or "suspend", not ${shown(value)}`)
})

/** A section; what it is told to hold and nothing else. */
export const section = <T extends z.core.$ZodLooseShape>(shape: T) =>
  z.object(shape, { error: (issue) => `must be a section, not ${shown(issue.input)}` })

export const list = <T extends z.ZodType>(item: T) =>
  z.array(item, { error: (issue) => `must be a list of sections, not ${shown(issue.input)}` })

export const named = <T extends z.ZodType>(item: T) =>
  z.record(z.string(), item, {
    error: (issue) => `must be a section of named entries, not ${shown(issue.input)}`,
  })
