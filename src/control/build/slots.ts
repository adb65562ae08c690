/** A bounded number of places, and one at a time for each key; first come, first served among those that may go. */
export interface Slots {
  /** Resolves with the function that frees the place. Rejects with the signal's reason when aborted first. */
  acquire(key: string, signal: AbortSignal): Promise<() => void>
}

interface Waiter {
  key: string
  go: () => void
}

export function openSlots(max: number): Slots {
  const busy = new Set<string>()
  const waiters: Waiter[] = []

  const admit = () => {
    for (let i = 0; i < waiters.length && busy.size < max;) {
      const waiter = waiters[i] as Waiter
      if (busy.has(waiter.key)) {
        i++
        continue
      }
      waiters.splice(i, 1)
      busy.add(waiter.key)
      waiter.go()
    }
  }

  return {
    acquire: (key, signal) =>
      new Promise((resolve, reject) => {
        signal.throwIfAborted()
        let freed = false
        const onAbort = () => {
          waiters.splice(waiters.indexOf(waiter), 1)
          reject(signal.reason as Error)
        }
        const waiter: Waiter = {
          key,
          go: () => {
            signal.removeEventListener('abort', onAbort)
            resolve(() => {
              if (freed) return
              freed = true
              busy.delete(key)
              admit()
            })
          },
        }
        signal.addEventListener('abort', onAbort, { once: true })
        waiters.push(waiter)
        admit()
      }),
  }
}
