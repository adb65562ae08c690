import { Fault } from '#core/fault.ts'

/** What works on this host, and for people what it is or why nothing does. */
export interface Found<T> {
  /** Undefined: nothing works here. */
  found?: T | undefined
  note: string
}

/** What is found out once and then holds; what does not work is found out anew whenever that is asked for. */
export class Finding<T> {
  readonly #find: () => Promise<Found<T>>
  #finding: Promise<Found<T>> | undefined

  /** `find` never rejects. */
  constructor(find: () => Promise<Found<T>>) {
    this.#find = find
  }

  get(): Promise<Found<T>> {
    this.#finding ??= this.#find()
    return this.#finding
  }

  /** As `get`, but what did not work is tried again: what mends it may be done while we run. */
  async again(): Promise<Found<T>> {
    const before = this.#finding
    const failed = before && (await before).found === undefined
    if (failed && this.#finding === before) this.#finding = undefined
    return this.get()
  }

  /** @throws Fault `native_failed` when nothing works here, with the reason */
  async need(): Promise<T> {
    const { found, note } = await this.get()
    if (found !== undefined) return found
    throw new Fault('native_failed', note)
  }
}
