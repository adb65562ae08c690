import { Fault } from './fault.ts'

/**
 * A named state machine as a table: for each state, the events that are legal there and the state they lead to. An
 * illegal pair throws, so that a wrong transition is a bug seen at once and never a state on disk.
 */
export type TransitionTable<S extends string, E extends string> = Record<S, Partial<Record<E, S>>>

export function transition<S extends string, E extends string>(
  table: TransitionTable<S, E>,
  what: string,
  state: S,
  event: E,
): S {
  const next = table[state][event]
  if (next === undefined) {
    throw new Fault('precondition_failed', `${what} cannot ${event} while it is ${state}`)
  }
  return next
}

export function allows<S extends string, E extends string>(
  table: TransitionTable<S, E>,
  state: S,
  event: E,
): boolean {
  return table[state][event] !== undefined
}
