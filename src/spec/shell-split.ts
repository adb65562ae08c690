/**
 * Splits a command line into words like a POSIX shell without expansions, as clients do before they send a command:
 * quotes, backslashes and `#` comments. Undefined when a quote or a backslash is left open. TOML-60.
 */
export function shellSplit(line: string): string[] | undefined {
  const words: string[] = []
  let word: string | undefined
  for (let at = 0; at < line.length; at++) {
    const char = line[at] as string
    if (char === "'") {
      const end = line.indexOf("'", at + 1)
      if (end < 0) return undefined
      word = (word ?? '') + line.slice(at + 1, end)
      at = end
    } else if (char === '"') {
      const quoted = readDoubleQuoted(line, at + 1)
      if (!quoted) return undefined
      word = (word ?? '') + quoted.text
      at = quoted.end
    } else if (char === '\\') {
      if (at + 1 >= line.length) return undefined
      word = (word ?? '') + (line[++at] as string)
    } else if (/\s/.test(char)) {
      if (word !== undefined) words.push(word)
      word = undefined
    } else if (char === '#' && word === undefined) {
      const end = line.indexOf('\n', at)
      if (end < 0) break
      at = end
    } else {
      word = (word ?? '') + char
    }
  }
  if (word !== undefined) words.push(word)
  return words
}

/** The text up to the closing quote and where that stands. Only `"` and `\` may be escaped there. */
function readDoubleQuoted(line: string, from: number): { text: string; end: number } | undefined {
  let text = ''
  for (let at = from; at < line.length; at++) {
    const char = line[at] as string
    if (char === '"') return { text, end: at }
    const next = line[at + 1]
    if (char === '\\' && (next === '"' || next === '\\')) {
      text += next
      at++
    } else {
      text += char
    }
  }
  return undefined
}
