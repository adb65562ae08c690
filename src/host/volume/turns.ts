import { Fault } from '#core/fault.ts'

const idPattern = /^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$/

/** Lets the verbs on one thing take turns. Rejects with Fault `invalid` for what is no id: ids become file names. */
export function openTurns(what: string): <T>(id: string, action: () => Promise<T>) => Promise<T> {
  const turns = new Map<string, Promise<unknown>>()
  return (id, action) => {
    if (!idPattern.test(id)) {
      return Promise.reject(new Fault('invalid', `"${id}" is not a ${what} id`))
    }
    const before = turns.get(id) ?? Promise.resolve()
    const mine = before.then(action, action)
    const settled = mine.then(
      () => {},
      () => {},
    )
    turns.set(id, settled)
    void settled.then(() => {
      if (turns.get(id) === settled) turns.delete(id)
    })
    return mine
  }
}
