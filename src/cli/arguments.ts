import { parseArgs } from 'node:util'
import { Fault } from '#core/fault.ts'
import type { Flag, FlagValues } from './command.ts'
import { suggestions } from './suggest.ts'

export interface ParsedArguments {
  args: string[]
  flags: FlagValues
}

/**
 * Parses the words after a command's name. Flags and arguments may be mixed; after `--` everything is an argument. An
 * unknown flag, a flag without its value or a value of the wrong kind is a Fault of code bad_request.
 */
export function parseArguments(words: readonly string[], flags: readonly Flag[]): ParsedArguments {
  const byName = new Map<string, Flag>()
  for (const flag of flags) {
    for (const name of [flag.name, ...(flag.aliases ?? [])]) byName.set(name, flag)
  }
  const options: Record<string, { type: 'string' | 'boolean'; multiple: true; short?: string }> = {}
  for (const [name, flag] of byName) {
    options[name] = {
      type: flag.kind === 'switch' || flag.bare !== undefined ? 'boolean' : 'string',
      multiple: true,
      ...(flag.short && name === flag.name ? { short: flag.short } : {}),
    }
  }
  const { tokens } = parseArgs({
    args: [...words],
    options,
    strict: false,
    allowPositionals: true,
    tokens: true,
  })
  const args: string[] = []
  const values = new Map<string, string[]>()
  for (const token of tokens) {
    if (token.kind === 'positional') args.push(token.value)
    if (token.kind !== 'option') continue
    const flag = byName.get(token.name) ?? unknownFlag(token.rawName, [...byName.keys()])
    const value = valueOf(flag, token.rawName, token.value)
    values.set(flag.name, [...(values.get(flag.name) ?? []), ...value])
  }
  return { args, flags: flagValues(flags, values) }
}

function unknownFlag(rawName: string, names: readonly string[]): never {
  const near = suggestions(rawName.replace(/^-+/, ''), names)[0]
  throw new Fault(
    'bad_request',
    `unknown flag: ${rawName}${near ? `\n\nDid you mean this?\n\t--${near}\n` : ''}`,
  )
}

function valueOf(flag: Flag, rawName: string, value: string | undefined): string[] {
  if (flag.kind === 'switch') {
    if (value === undefined) return ['true']
    if (/^(true|t|1|yes)$/i.test(value)) return ['true']
    if (/^(false|f|0|no)$/i.test(value)) return ['false']
    throw new Fault('bad_request', `${rawName} takes true or false, not "${value}"`)
  }
  const text = value ?? flag.bare
  if (text === undefined) throw new Fault('bad_request', `flag needs an argument: ${rawName}`)
  if (flag.kind === 'number' && !/^-?\d+(\.\d+)?$/.test(text)) {
    throw new Fault('bad_request', `${rawName} takes a number, not "${text}"`)
  }
  return flag.kind === 'list' ? text.split(',').filter((part) => part !== '') : [text]
}

function flagValues(flags: readonly Flag[], values: ReadonlyMap<string, string[]>): FlagValues {
  const known = new Set(flags.map((flag) => flag.name))
  const all = (name: string): string[] => {
    if (!known.has(name)) throw new Error(`this command does not declare the flag --${name}`)
    return values.get(name) ?? []
  }
  return {
    given: (name) => all(name).length > 0,
    on: (name, fallback = false) => {
      const last = all(name).at(-1)
      return last === undefined ? fallback : last === 'true'
    },
    text: (name) => all(name).at(-1),
    texts: (name) => [...all(name)],
    number: (name) => {
      const last = all(name).at(-1)
      return last === undefined ? undefined : Number(last)
    },
  }
}

/** `NAME=VALUE` pairs of a repeated flag as an object; the value may hold more `=` signs. */
export function keyValues(pairs: readonly string[], what: string): Record<string, string> {
  const out: Record<string, string> = {}
  for (const pair of pairs) {
    const at = pair.indexOf('=')
    if (at <= 0) {
      throw new Fault('bad_request', `${what} must be given as NAME=VALUE, not "${pair}"`)
    }
    out[pair.slice(0, at)] = pair.slice(at + 1)
  }
  return out
}
