import { readFileSync } from 'node:fs'

/** The kernel writes space, tab, newline and backslash in octal. */
const plain = (text: string): string =>
  text.replace(/\\([0-7]{3})/g, (_, digits: string) =>
    String.fromCharCode(Number.parseInt(digits, 8)),
  )

/** Every mount point that this process sees. */
export function mountPoints(): Set<string> {
  const lines = readFileSync('/proc/self/mountinfo', 'utf8').trim().split('\n')
  return new Set(lines.map((line) => plain(line.split(' ')[4] ?? '')))
}
