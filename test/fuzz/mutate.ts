import type { Random } from './random.ts'

/** Texts that have broken parsers before. */
const oddTexts = [
  '',
  ' ',
  '\t\r\n',
  '\0',
  '\ufeff',
  '\u202e',
  '\ud800',
  '😀',
  'İ',
  '-1',
  '0x10',
  '1e999',
  'NaN',
  'null',
  'true',
  '__proto__',
  'constructor',
  '../../etc/passwd',
  '%2e%2e%2f',
  '${x}',
  '$(x)',
  "' OR 1=1 --",
  '{{',
  '/',
  '//',
  '@',
  ':',
  '"',
  '\\',
]

const oddValues: readonly unknown[] = [
  null,
  true,
  false,
  0,
  -1,
  1.5,
  1e308,
  2 ** 31,
  2 ** 53,
  -0,
  [],
  {},
  [null],
  [[[[]]]],
  { '': '' },
  ...oddTexts,
]

/** Now and then a run long enough that a matcher which tries everything again would be seen to hang. */
function run(random: Random, text: string): string {
  const times = random.chance(0.01) ? 20_000 : 1 + random.int(40)
  return text.repeat(times)
}

function cut(random: Random, text: string): [string, string, string] {
  const from = random.int(text.length + 1)
  const to = Math.min(text.length, from + 1 + random.int(12))
  return [text.slice(0, from), text.slice(from, to), text.slice(to)]
}

const tokenPattern = /[\w.-]+|\s+|[^\w\s]/g

/** One small change of a text: of a letter, a token or a piece, some taken from `donor`. */
export function mutateText(random: Random, text: string, donor: string): string {
  const [before, piece, after] = cut(random, text)
  switch (random.int(8)) {
    case 0:
      return before + after
    case 1:
      return before + run(random, piece || 'a') + after
    case 2:
      return before + random.pick(oddTexts) + after
    case 3:
      return before + String.fromCharCode(random.int(random.chance(0.9) ? 128 : 0x10000)) + after
    case 4:
      return before + cut(random, donor)[1] + after
    case 5:
      return text.slice(0, random.int(text.length + 1))
    default:
      return mutateTokens(random, text, donor)
  }
}

/** A change of whole tokens: what is left is far more often well-formed than after a change of letters. */
export function mutateTokens(random: Random, text: string, donor: string): string {
  const tokens = text.match(tokenPattern) ?? []
  if (tokens.length === 0) return donor
  const at = random.int(tokens.length)
  const other = random.int(tokens.length)
  const donated = donor.match(tokenPattern) ?? ['x']
  switch (random.int(5)) {
    case 0:
      tokens.splice(at, 1)
      break
    case 1:
      tokens.splice(at, 0, ...tokens.slice(other, other + 1 + random.int(8)))
      break
    case 2:
      ;[tokens[at], tokens[other]] = [tokens[other] as string, tokens[at] as string]
      break
    case 3:
      tokens[at] = random.pick(donated)
      break
    default:
      tokens[at] = random.pick(oddTexts)
  }
  return tokens.join('')
}

type Holder = Record<string | number, unknown>

/** Every place in a value: what holds it, and under which key. */
function placesOf(value: unknown, places: [Holder, string | number][] = []): typeof places {
  if (typeof value !== 'object' || value === null) return places
  for (const key of Object.keys(value)) {
    places.push([value as Holder, Array.isArray(value) ? Number(key) : key])
    placesOf((value as Holder)[key], places)
  }
  return places
}

function mutateScalar(random: Random, value: unknown): unknown {
  if (typeof value === 'number') {
    return random.pick([value + 1, value - 1, -value, value * 256, value / 2, String(value)])
  }
  if (typeof value === 'string') return mutateText(random, value, random.pick(oddTexts))
  if (typeof value === 'boolean') return !value
  return structuredClone(random.pick(oddValues))
}

/** A copy of `value` with a few places changed, emptied, doubled, or filled from `donor`. */
export function mutateJson(random: Random, value: unknown, donor: unknown): unknown {
  const copy = { root: structuredClone(value) }
  for (let left = 1 + random.int(3); left > 0; left--) {
    const [holder, key] = random.pick(placesOf(copy))
    const donated = placesOf(donor)
    const [from, name] = donated.length > 0 ? random.pick(donated) : [{ x: 1 } as Holder, 'x']
    switch (random.int(6)) {
      case 0:
        if (Array.isArray(holder)) holder.splice(Number(key), 1)
        else if (holder !== copy) delete holder[key]
        break
      case 1:
        holder[key] = structuredClone(random.pick(oddValues))
        break
      case 2:
        holder[key] = structuredClone(from[name])
        break
      case 3:
        if (Array.isArray(holder)) holder.push(structuredClone(holder[Number(key)]))
        else if (holder !== copy) holder[name] = structuredClone(from[name])
        break
      default:
        holder[key] = mutateScalar(random, holder[key])
    }
  }
  return copy.root
}
