/** Runs the verbs of one name one after another, and those of different names side by side. */
export class IdLocks {
  readonly #last = new Map<string, Promise<unknown>>()
  readonly #breakers = new Map<string, AbortController>()

  run<T>(id: string, work: () => Promise<T>): Promise<T> {
    const before = this.#last.get(id) ?? Promise.resolve()
    const mine = before.then(work, work)
    const settled = mine.catch(() => {}) // The caller gets the error; the next in line only waits.
    this.#last.set(id, settled)
    void settled.then(() => {
      if (this.#last.get(id) === settled) this.#last.delete(id)
    })
    return mine
  }

  /** Work that whoever comes behind it need not wait for: its signal is that of `break`, or the given one. */
  breakable<T>(
    id: string,
    given: AbortSignal | undefined,
    work: (signal: AbortSignal) => Promise<T>,
  ): Promise<T> {
    return this.run(id, async () => {
      const breaker = new AbortController()
      this.#breakers.set(id, breaker)
      try {
        return await work(AbortSignal.any([breaker.signal, ...(given ? [given] : [])]))
      } finally {
        this.#breakers.delete(id)
      }
    })
  }

  /** Breaks off what is under way with a name, if it lets itself be broken off. */
  break(id: string, why: Error): void {
    this.#breakers.get(id)?.abort(why)
  }
}
