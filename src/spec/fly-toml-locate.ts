/** One step of a path into a document: a key or an index. */
export type KeyPath = readonly (string | number)[]

/** Sections with an older name (TOML-7): where to look when the present name is not in the text. */
const olderNames = new Map([
  ['vm', ['compute', 'computes']],
  ['mounts', ['mount']],
  ['metrics', ['metric']],
])

/**
 * The line (from 1) that a key path stands on in a TOML text: of the key itself, or of the nearest table around it when
 * the key is not written. Undefined when nothing of the path is there. Lenient: meant for a text that parses.
 */
export function locateKey(text: string, path: KeyPath): number | undefined {
  const lines = keyLines(text)
  const [first, ...rest] = path
  const names = typeof first === 'string' ? [first, ...(olderNames.get(first) ?? [])] : [first]
  for (let length = rest.length; length >= 0; length--) {
    for (const name of names) {
      const line = lookUp(lines, [name as string, ...rest.slice(0, length)])
      if (line !== undefined) return line
    }
  }
  return undefined
}

/** A list of one is often written as a plain table: its index is then not in the text. */
function lookUp(lines: ReadonlyMap<string, number>, path: KeyPath): number | undefined {
  const exact = lines.get(keyOf(path))
  if (exact !== undefined) return exact
  return lines.get(keyOf(path.filter((step) => typeof step === 'string')))
}

const keyOf = (path: KeyPath): string => JSON.stringify(path)

/** Every key path of a TOML text and the line of its first appearance. */
function keyLines(text: string): Map<string, number> {
  const scanner = new TomlScanner(text)
  let table: (string | number)[] = []
  const counts = new Map<string, number>()
  while (scanner.skipBlank()) {
    const line = scanner.line
    if (scanner.take('[')) {
      const list = scanner.take('[')
      const written = scanner.keys()
      scanner.skipLine()
      table = resolve(written, counts, list)
      if (list) scanner.note(table.slice(0, -1), line)
      scanner.note(table, line)
    } else {
      const keys = scanner.keys()
      if (keys.length === 0 || !scanner.take('=')) {
        scanner.skipLine()
        continue
      }
      const path = [...table, ...keys]
      scanner.note(path, line)
      scanner.value(path)
    }
  }
  return scanner.lines
}

/** The path of a table header: each part that is a list of tables points at its newest element. */
function resolve(written: string[], counts: Map<string, number>, list: boolean) {
  const path: (string | number)[] = []
  written.forEach((key, index) => {
    path.push(key)
    const id = keyOf(path)
    const last = index === written.length - 1
    if (last && list) counts.set(id, (counts.get(id) ?? -1) + 1)
    const count = counts.get(id)
    if (count !== undefined) path.push(count)
  })
  return path
}

/** Walks over TOML without understanding its values, noting where keys stand. */
class TomlScanner {
  readonly lines = new Map<string, number>()
  line = 1
  private at = 0
  private readonly text: string

  constructor(text: string) {
    this.text = text
  }

  note(path: KeyPath, line: number): void {
    const key = keyOf(path)
    if (!this.lines.has(key)) this.lines.set(key, line)
  }

  /** Skips spaces, line ends and comments; false at the end of the text. */
  skipBlank(): boolean {
    for (; this.at < this.text.length; this.step()) {
      const char = this.text[this.at] as string
      if (char === '#') this.skipLine()
      else if (!/\s/.test(char)) return true
    }
    return false
  }

  skipLine(): void {
    const end = this.text.indexOf('\n', this.at)
    this.at = end < 0 ? this.text.length : end
  }

  take(char: string): boolean {
    while (this.text[this.at] === ' ' || this.text[this.at] === '\t') this.at++
    if (this.text[this.at] !== char) return false
    this.at++
    return true
  }

  /** A dotted key, `a."b c".d`. */
  keys(): string[] {
    const keys: string[] = []
    do {
      this.take(' ')
      const quote = this.text[this.at]
      if (quote === '"' || quote === "'") {
        const from = this.at + 1
        this.string()
        keys.push(this.text.slice(from, this.at - 1))
      } else {
        const match = /^[A-Za-z0-9_-]+/.exec(this.text.slice(this.at, this.at + 256))
        if (!match) return keys
        this.at += match[0].length
        keys.push(match[0])
      }
    } while (this.take('.'))
    return keys
  }

  value(path: KeyPath): void {
    if (!this.skipBlank()) return
    const char = this.text[this.at]
    if (char === '"' || char === "'") return this.string()
    if (char === '{') return this.inlineTable(path)
    if (char === '[') return this.array(path)
    while (this.at < this.text.length && !/[,\]}\n#]/.test(this.text[this.at] as string)) this.at++
  }

  private inlineTable(path: KeyPath): void {
    this.at++
    while (this.skipBlank() && this.text[this.at] !== '}') {
      const line = this.line
      const keys = this.keys()
      if (keys.length === 0) this.at++
      if (!this.take('=')) continue
      const inner = [...path, ...keys]
      this.note(inner, line)
      this.value(inner)
      this.take(',')
    }
    this.at++
  }

  private array(path: KeyPath): void {
    this.at++
    for (let index = 0; this.skipBlank() && this.text[this.at] !== ']'; index++) {
      const before = this.at
      this.note([...path, index], this.line)
      this.value([...path, index])
      this.skipBlank()
      this.take(',')
      if (this.at === before) this.at++
    }
    this.at++
  }

  private string(): void {
    const quote = this.text[this.at] as string
    const triple = this.text.startsWith(quote.repeat(3), this.at)
    const close = triple ? quote.repeat(3) : quote
    this.at += close.length
    while (this.at < this.text.length && !this.text.startsWith(close, this.at)) {
      if (quote === '"' && this.text[this.at] === '\\') this.step()
      this.step()
    }
    this.at += close.length
    // A multi-line string may end in more quotes than close it.
    if (triple) while (this.text[this.at] === quote) this.at++
  }

  private step(): void {
    if (this.text[this.at] === '\n') this.line++
    this.at++
  }
}
