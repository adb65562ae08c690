/** Tells whoever waits for something that it changed, so that no wait ever polls. */
export class Changes {
  readonly #watchers = new Map<string, Set<() => void>>()

  notify(id: string): void {
    for (const watcher of this.#watchers.get(id) ?? []) watcher()
  }

  /**
   * Resolves with the first answer of `look` that is not undefined, asked now and after each change; with undefined after
   * `timeoutMs` or when the signal ends the wait. What `look` throws rejects.
   */
  until<T>(
    id: string,
    look: () => T | undefined,
    options: { timeoutMs: number; signal?: AbortSignal | undefined },
  ): Promise<T | undefined> {
    return new Promise((resolve, reject) => {
      const watchers = this.#watchers.get(id) ?? new Set()
      const finish = (settle: () => void) => {
        clearTimeout(timer)
        options.signal?.removeEventListener('abort', giveUp)
        watchers.delete(check)
        if (watchers.size === 0 && this.#watchers.get(id) === watchers) this.#watchers.delete(id)
        settle()
      }
      const giveUp = () => finish(() => resolve(undefined))
      const check = () => {
        try {
          const answer = look()
          if (answer !== undefined) finish(() => resolve(answer))
        } catch (error) {
          finish(() => reject(error))
        }
      }
      const timer = setTimeout(giveUp, options.timeoutMs)
      options.signal?.addEventListener('abort', giveUp, { once: true })
      watchers.add(check)
      this.#watchers.set(id, watchers)
      if (options.signal?.aborted) giveUp()
      else check()
    })
  }
}
