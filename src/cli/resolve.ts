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
  /** Undefined when no word names one. */
  command: Command | undefined
  /** `hangar apps list`. */
  path: string
  rest: string[]
}

/** Walks the words down the table. An unknown word where a command must stand is a Fault with what may be meant. */
export function findCommand(table: readonly Command[], words: readonly string[]): FoundCommand {
  let command: Command | undefined
  let path = 'hangar'
  let level: readonly Command[] | undefined = table
  const rest = [...words]
  while (level && rest[0] !== undefined && !rest[0].startsWith('-')) {
    const word = rest[0]
    const next: Command | undefined = level.find(
      ({ name, aliases }) => name === word || aliases?.includes(word),
    )
    if (!next) {
      if (command?.run) break
      throw unknownCommand(word, path, level)
    }
    rest.shift()
    command = next
    path += ` ${next.name}`
    level = next.commands
  }
  return { command, path, rest }
}

function unknownCommand(word: string, path: string, level: readonly Command[]): Fault {
  const names = level.flatMap(({ name, aliases }) => [name, ...(aliases ?? [])])
  const near = suggestions(word, names).slice(0, 3)
  const hint = near.length > 0 ? `\n\nDid you mean this?\n\t${near.join('\n\t')}\n` : ''
  return new Fault(
    'bad_request',
    `unknown command "${word}" for "${path}"${hint}\nRun "${path} --help" for the list of commands.`,
  )
}
