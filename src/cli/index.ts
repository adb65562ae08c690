import { isFault, messageOf } from '#core/fault.ts'
import { parseArguments } from './arguments.ts'
import { verbs } from './commands/index.ts'
import { makeCall } from './call.ts'
import { globalFlagsOf } from './flags.ts'
import { helpFor, helpForAll } from './help.ts'
import { colorsOf, complain, outputClosed, processIo, say, type Io } from './io.ts'
import { Cancelled } from './prompt.ts'
import { findCommand, findVerb, splitGlobals } from './resolve.ts'

/** Exit codes: 0 done, 1 an error, 127 interrupted (as flyctl). `machine exec` gives the code of what it ran. */
const failed = 1
const interrupted = 127

/**
 * The command line without `node` and the script: `['apps', 'list', '--json']`. Resolves with the exit code; every
 * error is printed, none is thrown. The caller ends the process with the code: a request may still be open.
 */
export async function main(argv: readonly string[], io: Io = processIo()): Promise<number> {
  try {
    return await dispatch(argv, io)
  } catch (error) {
    if (io.signal.reason === outputClosed) return 0
    if (io.signal.aborted || error instanceof Cancelled) return interrupted
    complain(io, `${colorsOf(io).red('Error:')} ${messageOf(error)}`)
    const expected = isFault(error) || (error as NodeJS.ErrnoException).syscall !== undefined
    if (!expected || argv.includes('--verbose')) explain(io, error)
    return failed
  }
}

/** A Fault, or what the system says of a file, is a message for people; anything else is a bug and shows where it is. */
function explain(io: Io, error: unknown): void {
  if (error instanceof Error && error.stack) complain(io, error.stack)
  if (error instanceof Error && error.cause) complain(io, `caused by: ${messageOf(error.cause)}`)
}

async function dispatch(argv: readonly string[], io: Io): Promise<number> {
  const { globals, words } = splitGlobals(argv)
  const asksHelp = words[0] === 'help'
  const rest = asksHelp ? words.slice(1) : words
  const [word] = rest
  if (word === undefined || word.startsWith('-')) {
    say(io, helpForAll(verbs))
    return asksHelp || argv.length === 0 || argv.some((one) => /^(-h|--help)$/.test(one))
      ? 0
      : failed
  }
  const found = findCommand(await findVerb(verbs, word).load(), rest.slice(1))
  const { command, path } = found
  const flags = [...(command.flags ?? []), ...globalFlagsOf(command)]
  const parsed = parseArguments([...globals, ...found.rest], flags)
  if (asksHelp || parsed.flags.on('help') || !command.run) {
    say(io, helpFor(command, path))
    return 0
  }
  return command.run(makeCall({ io, path, command, parsed }))
}
