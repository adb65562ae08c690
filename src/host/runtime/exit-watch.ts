import { watch, type FSWatcher } from 'node:fs'
import type { ExitRecord } from './driver.ts'

export interface ExitWatchOptions {
  /** Where supervisors write exit codes; a change here is looked at at once. */
  exitsDir: string
  /** Cheap: whether the machine may have ended. */
  mayHaveEnded(id: string): boolean
  /** The machine's end, settled; undefined when it runs after all. */
  settle(id: string): Promise<ExitRecord | undefined>
  onError(id: string, error: unknown): void
}

/** A killed supervisor writes nothing: seen only by looking. A look costs two small reads a machine. */
const lookEveryMs = 500
const looksPerSecondMax = 400

/**
 * Waits for the ends of machines, ours and adopted ones alike, with one inotify watch and one slow timer for all of
 * them. Both exist only while somebody waits.
 */
export class ExitWatch {
  readonly #options: ExitWatchOptions
  readonly #waiting = new Map<string, ((record: ExitRecord) => void)[]>()
  readonly #settling = new Set<string>()
  #watcher: FSWatcher | undefined
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
    this.#watcher ??= watch(this.#options.exitsDir, (_event, name) => {
      if (name) this.look(name)
    })
    this.#timer ??= setTimeout(() => this.#lookAtAll(), lookEveryMs)
  }

  #lookAtAll(): void {
    for (const id of this.#waiting.keys()) this.look(id)
    const gentleMs = (this.#waiting.size / looksPerSecondMax) * 1000
    this.#timer = setTimeout(() => this.#lookAtAll(), Math.max(lookEveryMs, gentleMs))
  }

  #close(): void {
    this.#watcher?.close()
    this.#watcher = undefined
    clearTimeout(this.#timer)
    this.#timer = undefined
  }
}
