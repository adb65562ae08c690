/** Runs jobs of one key one after the other, jobs of different keys side by side. */
export class KeyedQueue {
  readonly #tails = new Map<string, Promise<void>>()

  /** Resolves or rejects with the job; a job that fails does not stop the next one. */
  push(key: string, job: () => Promise<void>): Promise<void> {
    const before = this.#tails.get(key) ?? Promise.resolve()
    const done = before.then(job)
    const tail = done.catch(() => {})
    this.#tails.set(key, tail)
    void tail.then(() => {
      if (this.#tails.get(key) === tail) this.#tails.delete(key)
    })
    return done
  }

  /** Resolves when no job is left, those that are pushed meanwhile included. */
  async idle(): Promise<void> {
    while (this.#tails.size > 0) await Promise.all(this.#tails.values())
  }
}
