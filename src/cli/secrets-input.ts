import { Fault } from '#core/fault.ts'

/**
 * Secrets as lines of `NAME=VALUE`, from stdin or arguments: comments and empty lines are skipped, one pair of quotes
 * around a value is taken off, a value that begins with three double quotes goes on to the next three.
 */
export function parseSecrets(text: string): Record<string, string> {
  const out: Record<string, string> = {}
  let open: { name: string; lines: string[] } | undefined
  for (const line of text.split(/\r?\n/)) {
    if (open) {
      const ends = line.endsWith('"""')
      open.lines.push(ends ? line.slice(0, -3) : line)
      if (!ends) continue
      out[open.name] = open.lines.join('\n')
      open = undefined
      continue
    }
    if (line.startsWith('#') || line.trim() === '') continue
    const at = line.indexOf('=')
    if (at <= 0) {
      throw new Fault(
        'bad_request',
        // The line itself may be a secret: only its name part could be shown, and there is none.
        'secrets must be provided as NAME=VALUE pairs; a line has no NAME=',
      )
    }
    const name = line.slice(0, at).trim()
    const value = withoutComment(line.slice(at + 1).replace(/^ +/, ''))
    const fenced = value.startsWith('"""')
    if (fenced && !(value.length >= 6 && value.endsWith('"""'))) {
      open = { name, lines: [value.slice(3)] }
    } else {
      out[name] = fenced ? value.slice(3, -3) : withoutQuotes(value)
    }
  }
  if (open) {
    throw new Fault('bad_request', `the value of ${open.name} begins with """ that is never closed`)
  }
  return out
}

/** What follows a `#` that stands outside double quotes is a comment. */
function withoutComment(value: string): string {
  const at = value.indexOf('#')
  if (at < 0) return value
  const before = value.slice(0, at)
  const quotes = before.split('"').length - 1
  return quotes % 2 === 0 ? before.trimEnd() : value
}

function withoutQuotes(value: string): string {
  const quote = value[0]
  const quoted = value.length >= 2 && (quote === '"' || quote === "'") && value.endsWith(quote)
  return quoted ? value.slice(1, -1) : value
}
