/**
 * Work over everything there is, by name: one pass at a time. All who ask while one is under way share the next, which sees
 * what they have written down before they asked.
 */
export class SharedPasses {
  readonly #last = new Map<string, Promise<void>>()
  readonly #next = new Map<string, Promise<void>>()

  /** Resolves or rejects with a pass that begins after this call. */
  run(name: string, pass: () => Promise<void>): Promise<void> {
    const known = this.#next.get(name)
    if (known) return known
    const before = this.#last.get(name) ?? Promise.resolve()
    const next = before.then(() => {
      this.#next.delete(name)
      const running = pass()
      this.#last.set(
        name,
        running.catch(() => {}),
      )
      return running
    })
    this.#next.set(name, next)
    return next
  }
}
