import type { ExitRecord } from './driver.ts'

export interface ExitWatchOptions {
  /** Cheap: whether the machine may have ended. */
  mayHaveEnded(id: string): boolean
  /** The machine's end, settled; undefined when it runs after all. */
  settle(id: string): Promise<ExitRecord | undefined>
  onError(id: string, error: unknown): void
}

/** A killed PID 1 says nothing: seen only by looking, where no channel broke. A look costs two small reads a machine. */
const lookEveryMs = 500
const looksPerSecondMax = 400

/**
 * Waits for the ends of machines, ours and adopted ones alike, with one slow timer for all of them, which exists only
 * while somebody waits.
 */
export class ExitWatch {
  readonly #options: ExitWatchOptions
  readonly #waiting = new Map<string, ((record: ExitRecord) => void)[]>()
  readonly #settling = new Set<string>()
  #timer: NodeJS.Timeout | undefined

  constructor(options: ExitWatchOptions) {
    this.#options = options
  }

  /** Resolves with the end of a machine that runs now. */
  wait(id: string): Promise<ExitRecord> {
    return new Promise((resolve) => {
      const waiting = this.#waiting.get(id)
      if (waiting) waiting.push(resolve)
      else this.#waiting.set(id, [resolve])
      this.#open()
      this.look(id)
    })
  }

  /** Looks at one machine now. */
  look(id: string): void {
    if (!this.#waiting.has(id) || this.#settling.has(id) || !this.#options.mayHaveEnded(id)) return
    this.#settling.add(id)
    this.#options
      .settle(id)
      .then((record) => {
        if (record) this.tell(id, record)
      })
      .catch((error: unknown) => this.#options.onError(id, error))
      .finally(() => this.#settling.delete(id))
  }

  /** Hands a known end to all who wait for it. */
  tell(id: string, record: ExitRecord): void {
    const waiting = this.#waiting.get(id) ?? []
    this.#waiting.delete(id)
    if (this.#waiting.size === 0) this.#close()
    for (const resolve of waiting) resolve(record)
  }

  #open(): void {
    this.#timer ??= setTimeout(() => this.#lookAtAll(), lookEveryMs)
  }

  #lookAtAll(): void {
    for (const id of this.#waiting.keys()) this.look(id)
    const gentleMs = (this.#waiting.size / looksPerSecondMax) * 1000
    this.#timer = setTimeout(() => this.#lookAtAll(), Math.max(lookEveryMs, gentleMs))
  }

  #close(): void {
    clearTimeout(this.#timer)
    this.#timer = undefined
  }
}
