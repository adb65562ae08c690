import { Fault } from '#core/fault.ts'
import type { Command } from './command.ts'
import { globalFlags } from './flags.ts'
import { suggestions } from './suggest.ts'

/** Takes the global flags that stand before the verb off the words. */
export function splitGlobals(argv: readonly string[]): { globals: string[]; words: string[] } {
  const globals: string[] = []
  const words = [...argv]
  while (words[0]?.startsWith('-') && words[0] !== '-' && words[0] !== '--') {
    const word = words.shift() ?? ''
    globals.push(word)
    const flag = globalFlags.find(({ name, short }) => word === `--${name}` || word === `-${short}`)
    const value = flag && flag.kind !== 'switch' ? words.shift() : undefined
    if (value !== undefined) globals.push(value)
  }
  return { globals, words }
}

export interface FoundCommand {
  command: Command
  /** `hangar apps list`. */
  path: string
  rest: string[]
}

type Named = Pick<Command, 'name' | 'aliases'>

const named =
  (word: string) =>
  ({ name, aliases }: Named): boolean =>
    name === word || (aliases?.includes(word) ?? false)

/** The verb of that name, or a Fault with what may be meant. */
export function findVerb<T extends Named>(verbs: readonly T[], word: string): T {
  const verb = verbs.find(named(word))
  if (verb) return verb
  throw unknownCommand(word, 'hangar', verbs)
}

/** Walks the words down from a verb. An unknown word where a command must stand is a Fault with what may be meant. */
export function findCommand(verb: Command, words: readonly string[]): FoundCommand {
  let command = verb
  let path = `hangar ${verb.name}`
  const rest = [...words]
  while (command.commands && rest[0] !== undefined && !rest[0].startsWith('-')) {
    const next = command.commands.find(named(rest[0]))
    if (!next) throw unknownCommand(rest[0], path, command.commands)
    rest.shift()
    command = next
    path += ` ${next.name}`
  }
  return { command, path, rest }
}

function unknownCommand(word: string, path: string, level: readonly Named[]): Fault {
  const names = level.flatMap(({ name, aliases }) => [name, ...(aliases ?? [])])
  const near = suggestions(word, names).slice(0, 3)
  const hint = near.length > 0 ? `\n\nDid you mean this?\n\t${near.join('\n\t')}\n` : ''
  return new Fault(
    'bad_request',
    `unknown command "${word}" for "${path}"${hint}\nRun "${path} --help" for the list of commands`,
  )
}
