import { isObject, type Json } from './fly-toml-legacy.ts'

/** The order in which sections are written; what is not named here follows in its own order. */
const order = `
  app primary_region kill_signal kill_timeout swap_size_mb console_command
  experimental build deploy env processes mounts http_service services checks files host_dedication_id
  machine_config container machine_checks restart vm statics metrics`
  .trim()
  .split(/\s+/)

/**
 * A definition as a fly.toml in the style of the tools that people know: plain keys first, sections indented, strings in
 * single quotes. `at` is the date that the header shows. DEP-41.
 */
export function writeFlyToml(definition: Json, { at }: { at: Date }): string {
  const name = typeof definition['app'] === 'string' ? definition['app'] : 'an app'
  const header = [
    `# fly.toml app configuration file generated for ${name} on ${at.toISOString().replace(/\.\d+Z$/, 'Z')}`,
    '#',
    '# See https://fly.io/docs/reference/configuration/ for information about how to use this file.',
    '#',
    '',
  ]
  const rank = (key: string) => (order.includes(key) ? order.indexOf(key) : order.length)
  const keys = Object.keys(definition).toSorted((a, b) => rank(a) - rank(b))
  const sorted = Object.fromEntries(keys.map((key) => [key, definition[key]]))
  return `${[...header, ...tableLines(sorted, [], 0)].join('\n')}\n`
}

/** The keys of a table, then its tables: TOML has no way back from a sub-table. */
function tableLines(table: Json, path: string[], depth: number): string[] {
  const indent = '  '.repeat(depth)
  const entries = Object.entries(table).filter(([, value]) => value !== null && value !== undefined)
  const plain = entries.filter(([, value]) => !isTable(value) && !isTableList(value))
  const lines = plain.map(([key, value]) => `${indent}${keyText(key)} = ${valueText(value)}`)
  for (const [key, value] of entries) {
    const inner = [...path, key]
    const innerIndent = '  '.repeat(Math.max(0, depth))
    const name = inner.map(keyText).join('.')
    if (isTable(value)) {
      lines.push('', `${innerIndent}[${name}]`, ...tableLines(value, inner, depth + 1))
    } else if (isTableList(value)) {
      for (const item of value) {
        lines.push('', `${innerIndent}[[${name}]]`, ...tableLines(item, inner, depth + 1))
      }
    }
  }
  return lines
}

const isTable = (value: unknown): value is Json => isObject(value)
const isTableList = (value: unknown): value is Json[] =>
  Array.isArray(value) && value.length > 0 && value.every(isObject)

const keyText = (key: string): string => (/^[A-Za-z0-9_-]+$/.test(key) ? key : stringText(key))

function valueText(value: unknown): string {
  if (typeof value === 'string') return stringText(value)
  if (Array.isArray(value)) return `[${value.map(valueText).join(', ')}]`
  if (isObject(value)) {
    const items = Object.entries(value).map(([key, item]) => `${keyText(key)} = ${valueText(item)}`)
    return `{${items.join(', ')}}`
  }
  return String(value)
}

/** A literal string where it can be one; JSON's escapes are TOML's but for the delete character. */
function stringText(value: string): string {
  // oxlint-disable-next-line no-control-regex -- control characters are what a literal string cannot hold
  return /['\u0000-\u001f\u007f]/.test(value)
    ? JSON.stringify(value).replaceAll('\u007f', '\\u007f')
    : `'${value}'`
}
