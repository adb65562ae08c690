import { limits } from '#core/limits.ts'
import { systemClock } from '#core/clock.ts'
import type { LogLine } from '#spec/host-api.ts'
import { LogFileReader } from './log-file.ts'
import type { LogSpool } from './spool.ts'
import { timestampOf, type StoredLine } from './stored-line.ts'

export interface LogQuery {
  /** Asked anew while following, so that machines that come later are seen. */
  machines: () => readonly { id: string; app: string; region: string }[]
  /** Only lines behind this moment: nanoseconds since the epoch, as digits. */
  since?: string | undefined
  limit: number
}

const bytesPerFileMax = 1024 * 1024
const followPollMs = 100
const rescanMs = 1_000

interface Source {
  machine: { id: string; app: string; region: string }
  reader: LogFileReader
}

/** The log of machines as one ordered list of lines. */
export class LogReader {
  readonly #spool: LogSpool
  readonly #query: LogQuery
  readonly #sources = new Map<string, Source>()
  #scanned = false

  constructor(spool: LogSpool, query: LogQuery) {
    this.#spool = spool
    this.#query = query
  }

  /**
   * Oldest first, at most `limit` lines: the first ones behind `since`, or without it the newest. The `ns` of the last
   * line is the cursor to go on from.
   */
  async history(): Promise<LogLine[]> {
    const since = this.#query.since === undefined ? undefined : BigInt(this.#query.since)
    const limit = Math.min(this.#query.limit, limits.logLinesPerReadMax)
    const { lines, complete } = await this.#read(since)
    if (since === undefined) return lines.slice(-limit)
    // A file that was not read to its end hides what lies behind its last line: stop there, the cursor goes on.
    const whole = complete === undefined ? lines : lines.filter((l) => BigInt(l.ns) <= complete)
    return whole.slice(0, limit)
  }

  /** The history, then each new line as it comes, until the signal ends it. */
  async *follow(signal: AbortSignal): AsyncGenerator<LogLine> {
    const since = this.#query.since === undefined ? undefined : BigInt(this.#query.since)
    const first = (await this.#read(since)).lines
    yield* since === undefined ? first.slice(-this.#query.limit) : first
    let scannedAt = systemClock.now()
    while (!signal.aborted) {
      await systemClock.sleep(followPollMs, signal).catch(() => {})
      const scan = systemClock.now() - scannedAt >= rescanMs
      if (scan) scannedAt = systemClock.now()
      yield* (await this.#read(0n, scan)).lines
    }
  }

  async #read(
    since: bigint | undefined,
    scan = true,
  ): Promise<{ lines: LogLine[]; complete: bigint | undefined }> {
    if (scan) this.#scan()
    const lines: LogLine[] = []
    let complete: bigint | undefined
    for (const { machine, reader } of this.#sources.values()) {
      const read = await reader.read(bytesPerFileMax, since)
      for (const line of read.lines) lines.push(asLogLine(line, machine))
      const last = read.lines.at(-1)
      if (read.more && last && (complete === undefined || last.ns < complete)) complete = last.ns
    }
    // Digits of one length: their order as text is their order in time.
    lines.sort((a, b) => (a.ns < b.ns ? -1 : a.ns > b.ns ? 1 : 0))
    return { lines, complete }
  }

  #scan(): void {
    for (const machine of this.#query.machines()) {
      for (const path of this.#spool.files(machine.id)) {
        // What a cut moved aside while we follow was read before it was cut.
        const moved = this.#scanned && path.endsWith('.0.log')
        if (!moved && !this.#sources.has(path)) {
          this.#sources.set(path, { machine, reader: new LogFileReader(path) })
        }
      }
    }
    this.#scanned = true
  }
}

function asLogLine(line: StoredLine, machine: Source['machine']): LogLine {
  const [source = '', level] = line.stream.split(':')
  return {
    ns: String(line.ns),
    timestamp: timestampOf(line.ns),
    app: machine.app,
    region: machine.region,
    instance: machine.id,
    level: level === 'warn' || level === 'error' ? level : 'info',
    provider: source === 'runner' || source === 'proxy' ? source : 'app',
    message: line.text,
  }
}
