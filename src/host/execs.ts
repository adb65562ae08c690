import { Fault } from '#core/fault.ts'
import { limits } from '#core/limits.ts'

/**
 * Programs that run in machines for somebody who waits for them. They die with this process, so they are written nowhere. Each
 * has a deadline, so nothing is kept awake by them for ever.
 */
export class Execs {
  readonly #running = new Map<string, number>()
  #all = 0

  /** Counts one more until what it returns is called. @throws Fault `limit_reached` */
  begin(machine: string): () => void {
    if (this.#all >= limits.programsPerHostMax) {
      throw new Fault(
        'limit_reached',
        `this host runs ${limits.programsPerHostMax} commands in machines already; try again when some have ended`,
      )
    }
    this.#all++
    this.#running.set(machine, (this.#running.get(machine) ?? 0) + 1)
    let over = false
    return () => {
      if (over) return
      over = true
      this.#all--
      const left = (this.#running.get(machine) ?? 1) - 1
      if (left > 0) this.#running.set(machine, left)
      else this.#running.delete(machine)
    }
  }

  any(machine: string): boolean {
    return this.#running.has(machine)
  }
}
