import { posix } from 'node:path'
import { Fault } from '#core/fault.ts'

/**
 * Docker's ignore rules. A line is a pattern: `#` at its start makes it a comment, `!` brings back what an earlier line
 * took away, `*` and `?` stop at a slash, `**` does not, and the last line that matches a path or a folder above it
 * decides. Patterns are relative to the root of the context; a slash at either end means nothing.
 */
interface Pattern {
  text: string
  /** `!`. */
  includes: boolean
  matches: (path: string) => boolean
}

export interface IgnoreRules {
  /** For each pattern whether it matched; what the entries of a folder are decided with. */
  decide(path: string, parent?: Decision): Decision
  /** False when nothing below an ignored folder can come back, so that it need not be read. */
  mayIncludeBelow(folder: string): boolean
}

export interface Decision {
  ignored: boolean
  matched: readonly boolean[]
}

/** The patterns of an ignore file. A pattern that cannot be understood is a Fault that names it. */
export function parseIgnoreFile(text: string): IgnoreRules {
  const patterns: Pattern[] = []
  for (const line of text.replace(/^\uFEFF/, '').split(/\r?\n/)) {
    if (line.startsWith('#') || line.trim() === '') continue
    patterns.push(parsePattern(line.trim()))
  }
  return rulesOf(patterns)
}

function parsePattern(line: string): Pattern {
  const includes = line.startsWith('!')
  const written = (includes ? line.slice(1) : line).trim()
  if (written === '') {
    throw new Fault('bad_request', 'a line of the ignore file is "!" alone; name what to include')
  }
  const clean = posix.normalize(written)
  const text = clean.length > 1 ? clean.replace(/^\//, '').replace(/\/$/, '') || '/' : clean
  return { text, includes, matches: matcherOf(text) }
}

function rulesOf(patterns: readonly Pattern[]): IgnoreRules {
  const includes = patterns.filter((pattern) => pattern.includes)
  const plainOnly = includes.every(({ text }) => !/[*?[\\]/.test(text))
  return {
    decide(path, parent) {
      let ignored = false
      const matched = patterns.map((pattern, i) => {
        let match = parent?.matched[i] ?? false
        // A pattern that could not change the answer is not tried, and so does not count for what lies below: Docker
        // does the same, and some ignore files depend on it.
        if (!match && pattern.includes === ignored) match = pattern.matches(path)
        if (match) ignored = !pattern.includes
        return match
      })
      return { ignored, matched }
    },
    mayIncludeBelow: (folder) =>
      includes.length > 0 &&
      (!plainOnly || includes.some(({ text }) => `${text}/`.startsWith(`${folder}/`))),
  }
}

/** How one cleaned pattern is compared with a path. */
function matcherOf(text: string): (path: string) => boolean {
  const special = /[*?[\]\\]/.test(text)
  if (!special) return (path) => path === text
  if (/^[^*?[\]\\]*\*\*$/.test(text) && text !== '**') {
    const prefix = text.slice(0, -2)
    return (path) => path.startsWith(prefix)
  }
  if (/^\*\*[^*?[\]\\]*$/.test(text)) {
    const suffix = text.slice(2)
    return (path) => path.endsWith(suffix) || (suffix[0] === '/' && path === suffix.slice(1))
  }
  let expression: RegExp
  try {
    expression = new RegExp(`^${toExpression(text)}$`, 'su')
  } catch (cause) {
    throw new Fault(
      'bad_request',
      `the pattern "${text}" of the ignore file cannot be understood: an unclosed "["?`,
      { cause },
    )
  }
  return (path) => expression.test(path)
}

function toExpression(text: string): string {
  let out = ''
  let inClass = false
  const chars = Array.from(text)
  for (let i = 0; i < chars.length; i++) {
    const char = chars[i] as string
    if (char === '\\') out += escapeChar(chars[++i] ?? '\\')
    else if (inClass || char === '[') {
      inClass = char !== ']'
      out += char
    } else if (char === '*' && chars[i + 1] === '*') {
      i++
      if (chars[i + 1] === '/') i++
      out += i + 1 >= chars.length ? '.*' : '(?:.*/)?'
    } else if (char === '*') out += '[^/]*'
    else if (char === '?') out += '[^/]'
    else out += escapeChar(char)
  }
  return out
}

const escapeChar = (char: string): string => (/[.*+?^${}()|[\]\\/]/.test(char) ? `\\${char}` : char)
