import type { Clock } from '#core/clock.ts'

/**
 * When the clients that drive deploys were heard last, by app and token. In memory alone: a control process that is new has
 * heard everybody at its own start, so a restart only makes it wait longer.
 */
export class ClientContacts {
  private readonly clock: Clock
  private readonly since: number
  private readonly heard = new Map<string, number>()
  private readonly asking = new Map<string, number>()

  constructor(clock: Clock) {
    this.clock = clock
    this.since = clock.now()
  }

  /** A request of the client begins; call what is returned when it is answered. A long wait counts as long as it lasts. */
  begin(app: string, token: string): () => void {
    const key = keyOf(app, token)
    this.asking.set(key, (this.asking.get(key) ?? 0) + 1)
    this.note(key, this.clock.now())
    let over = false
    return () => {
      if (over) return
      over = true
      const left = (this.asking.get(key) ?? 1) - 1
      if (left > 0) this.asking.set(key, left)
      else this.asking.delete(key)
      this.note(key, this.clock.now())
    }
  }

  /** Milliseconds since the epoch; now while a request of it is being answered. */
  lastHeard(app: string, token: string): number {
    const key = keyOf(app, token)
    return this.asking.has(key) ? this.clock.now() : (this.heard.get(key) ?? this.since)
  }

  /** Takes it as heard then, such as until a lease of it runs out. */
  heardAt(app: string, token: string, at: number): void {
    this.note(keyOf(app, token), at)
  }

  private note(key: string, at: number): void {
    const newest = Math.max(at, this.heard.get(key) ?? 0)
    // The one that was noted last stands last, so that the oldest can be dropped.
    this.heard.delete(key)
    this.heard.set(key, newest)
    const [oldest] = this.heard.keys()
    if (this.heard.size > contactsMax && oldest !== undefined) this.heard.delete(oldest)
  }
}

const contactsMax = 50_000

/** No app has a longer name than this: whoever asks for one must not fill the memory with it. */
const keyOf = (app: string, token: string) => `${app.slice(0, 63)}\n${token}`
