import { stripVTControlCharacters } from 'node:util'
import { colorsOf, say, type Io } from './io.ts'

/** Columns that a terminal needs for a text; wide characters count two. */
function widthOf(text: string): number {
  let width = 0
  for (const char of stripVTControlCharacters(text)) {
    const code = char.codePointAt(0) ?? 0
    width += code >= 0x1100 && isWide(code) ? 2 : 1
  }
  return width
}

function isWide(code: number): boolean {
  return (
    code <= 0x115f ||
    (code >= 0x2e80 && code <= 0xa4cf) ||
    (code >= 0xac00 && code <= 0xd7a3) ||
    (code >= 0xf900 && code <= 0xfaff) ||
    (code >= 0xfe30 && code <= 0xfe6f) ||
    (code >= 0xff00 && code <= 0xff60) ||
    (code >= 0x1f300 && code <= 0x1faff)
  )
}

// A control character in a name or a check's output must not move the cursor or break a row.
const oneLine = (text: string): string =>
  // oxlint-disable-next-line no-control-regex -- control characters are what is looked for
  text.replace(/[\u0000-\u001a\u001c-\u001f\u007f]+/g, ' ').trimEnd()

/** Lines of a table: upper-case headers, columns two spaces apart, nothing after the last one. */
export function tableLines(
  headers: readonly string[],
  rows: readonly (readonly string[])[],
): string[] {
  const head = headers.map((header) => header.toUpperCase())
  const body = rows.map((row) => row.map(oneLine))
  const all = headers.length > 0 ? [head, ...body] : body
  const widths: number[] = []
  for (const row of all) {
    row.forEach((cell, i) => (widths[i] = Math.max(widths[i] ?? 0, widthOf(cell))))
  }
  return all.map((row) =>
    row
      .map((cell, i) => cell + ' '.repeat((widths[i] ?? 0) - widthOf(cell)))
      .join('  ')
      .trimEnd(),
  )
}

/** Prints a table and an empty line. The title may be empty. */
export function sayTable(
  io: Io,
  options: {
    title?: string
    headers?: readonly string[]
    rows: readonly (readonly string[])[]
  },
): void {
  if (options.title) say(io, colorsOf(io).bold(options.title))
  for (const line of tableLines(options.headers ?? [], options.rows)) say(io, line)
  say(io)
}

/** Prints one thing as `Name = value` lines and an empty line. */
export function sayFields(
  io: Io,
  options: { title?: string; fields: readonly (readonly [string, string])[] },
): void {
  if (options.title) say(io, colorsOf(io).bold(options.title))
  const width = Math.max(...options.fields.map(([name]) => name.length))
  for (const [name, value] of options.fields) {
    say(io, `  ${name.padEnd(width)} = ${oneLine(value)}`.trimEnd())
  }
  say(io)
}
