import { limits } from '#core/limits.ts'

/**
 * One line of a log file, in the format that Kubernetes gave its name to: `2026-01-02T03:04:05.678901234+00:00 stdout F text`. Our own lines
 * use it too, with `runner`, `proxy` in the place of the stream, and `:warn` or `:error` behind it.
 */
export interface StoredLine {
  ns: bigint
  stream: string
  /** More of the same line follows. */
  partial: boolean
  text: string
}

const pattern =
  /^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d) (\S+) ([FP])(?:\S*) (.*)$/s

/** Undefined for a line that is none, e.g. one cut by a crash. */
export function parseStoredLine(line: string): StoredLine | undefined {
  const match = pattern.exec(line)
  if (!match) return undefined
  const [, seconds, fraction = '', zone, stream, tag, text] = match
  const ms = Date.parse(`${seconds}${zone}`)
  if (Number.isNaN(ms)) return undefined
  return {
    ns: BigInt(ms) * 1_000_000n + BigInt(fraction.padEnd(9, '0')),
    stream: stream as string,
    partial: tag === 'P',
    text: text as string,
  }
}

export function timestampOf(ns: bigint): string {
  const seconds = new Date(Number(ns / 1_000_000n)).toISOString().slice(0, 19)
  return `${seconds}.${String(ns % 1_000_000_000n).padStart(9, '0')}Z`
}

export function formatStoredLine(line: Omit<StoredLine, 'partial'>): string {
  const text = line.text.replaceAll('\n', ' ').slice(0, limits.logLineBytesMax)
  return `${timestampOf(line.ns)} ${line.stream} F ${text}\n`
}

/** Puts partial lines together; a joined line has the moment of its first part and is cut at the limit. */
export class LineJoiner {
  #open = new Map<string, StoredLine>()

  /** The whole line, or undefined while more of it is to come. */
  take(line: StoredLine): StoredLine | undefined {
    const before = this.#open.get(line.stream)
    const whole = before
      ? { ...before, partial: line.partial, text: before.text + line.text }
      : line
    if (line.partial && whole.text.length < limits.logLineBytesMax) {
      this.#open.set(line.stream, whole)
      return undefined
    }
    this.#open.delete(line.stream)
    return { ...whole, partial: false, text: whole.text.slice(0, limits.logLineBytesMax) }
  }
}
