import { appendFileSync, mkdirSync, readdirSync, rmSync, statSync } from 'node:fs'
import { copyFile, truncate } from 'node:fs/promises'
import { join } from 'node:path'
import { limits } from '#core/limits.ts'
import type { LogLine } from '#spec/host-api.ts'
import { formatStoredLine } from './stored-line.ts'

/** Runs of a machine whose output is kept. */
const runsKept = 20
const platformBytesMax = 4 * 1024 * 1024

/**
 * Where the logs of this host's machines lie: a folder for each machine with one file for each run (`RunLog`),
 * and one for the lines of the platform itself.
 */
export class LogSpool {
  readonly #dir: string
  #lastNs = 0n

  constructor(dir: string) {
    this.#dir = dir
    mkdirSync(dir, { recursive: true, mode: 0o750 })
  }

  /** The file of a machine's run; makes room for it within the machine's bound. */
  prepareRun(machine: string, run: number): string {
    const folder = join(this.#dir, machine)
    mkdirSync(folder, { recursive: true, mode: 0o750 })
    this.#makeRoom(machine)
    return join(folder, runName(run))
  }

  /** Writes a line of the platform into the machine's log. Never throws: a full disk must not end a machine. */
  say(
    machine: string,
    line: { provider: 'runner' | 'proxy'; level?: LogLine['level']; message: string },
  ): void {
    // The end of the present millisecond, so that it sorts behind the output that came before it.
    const now = (BigInt(Date.now()) + 1n) * 1_000_000n - 1n
    const ns = now > this.#lastNs ? now : this.#lastNs + 1n
    this.#lastNs = ns
    const level = line.level && line.level !== 'info' ? `:${line.level}` : ''
    const text = formatStoredLine({ ns, stream: `${line.provider}${level}`, text: line.message })
    try {
      mkdirSync(join(this.#dir, machine), { recursive: true, mode: 0o750 })
      appendFileSync(join(this.#dir, machine, 'platform.log'), text, { mode: 0o640 })
    } catch {
      // The line is lost; the machine goes on.
    }
  }

  /** The log files of a machine, oldest run first. */
  files(machine: string): string[] {
    const folder = join(this.#dir, machine)
    try {
      return readdirSync(folder)
        .filter((name) => name.endsWith('.log'))
        .sort()
        .map((name) => join(folder, name))
    } catch {
      return []
    }
  }

  forget(machine: string): void {
    rmSync(join(this.#dir, machine), { recursive: true, force: true })
  }

  /**
   * Holds a machine within its bound: the oldest runs go first; a single run that is over it is cut to its newest half.
   * The file stays the same one, because its writer has it open for appending.
   */
  async sweep(machine: string): Promise<void> {
    this.#makeRoom(machine)
    for (const path of this.files(machine)) {
      const bound = path.endsWith('platform.log')
        ? platformBytesMax
        : limits.logBytesPerMachineMax / 2
      if (sizeOf(path) <= bound) continue
      const older = path.replace(/\.log$/, '.0.log')
      await copyFile(path, older)
      await truncate(path, 0)
    }
  }

  #makeRoom(machine: string): void {
    const runs = this.files(machine).filter((path) => !path.endsWith('platform.log'))
    let total = runs.reduce((sum, path) => sum + sizeOf(path), 0)
    for (const [i, path] of runs.entries()) {
      const newest = i === runs.length - 1
      const tooMany = runs.length - i > runsKept
      if (newest || (!tooMany && total <= limits.logBytesPerMachineMax)) return
      total -= sizeOf(path)
      rmSync(path, { force: true })
    }
  }
}

// `run-000012.0.log`, the older half of a run that was cut, sorts before `run-000012.log`.
const runName = (run: number) => `run-${String(run).padStart(6, '0')}.log`

function sizeOf(path: string): number {
  try {
    return statSync(path).size
  } catch {
    return 0
  }
}
