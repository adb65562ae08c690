import type { Command, Flag } from './command.ts'
import { globalFlags, globalFlagsOf } from './flags.ts'

/** The verbs that start, stop and check the cloud; another room answers them, the help names them all. */
export const cloudVerbs: readonly (readonly [string, string])[] = [
  ['up', 'Start the cloud in the background, or adopt the one that runs'],
  ['down', 'Stop the cloud and keep its data'],
  ['destroy', 'Stop the cloud and remove its data'],
  ['doctor', 'Check this machine and say what each missing thing costs'],
]

const columns = (rows: readonly (readonly [string, string])[]): string[] => {
  const width = Math.max(...rows.map(([left]) => left.length))
  return rows.map(([left, right]) => `  ${left.padEnd(width)}  ${right}`.trimEnd())
}

function flagRow(flag: Flag): [string, string] {
  const short = flag.short ? `-${flag.short}, ` : '    '
  const takes = flag.kind === 'switch' ? '' : ` ${flag.value ?? 'VALUE'}`
  const fallback = flag.fallback ? ` (default ${flag.fallback})` : ''
  return [`${short}--${flag.name}${takes}`, `${flag.summary}${fallback}`]
}

const visible = (flags: readonly Flag[]) => flags.filter(({ hidden }) => !hidden).map(flagRow)

/** The help of the whole program. */
export function helpForAll(verbs: readonly Pick<Command, 'name' | 'summary'>[]): string {
  return [
    'hangar is an open Fly.io on hardware you own.',
    '',
    'Usage:',
    '  hangar [COMMAND] [FLAGS]',
    '',
    'The cloud on this machine:',
    ...columns(cloudVerbs),
    '',
    'Apps in it:',
    ...columns(verbs.map(({ name, summary }): [string, string] => [name, summary])),
    '',
    'Flags:',
    ...columns(visible(globalFlags)),
    '',
    'Use "hangar COMMAND --help" for more about a command.',
  ].join('\n')
}

/** The help of one command. */
export function helpFor(command: Command, path: string): string {
  const usage = command.run
    ? [`  ${path}${command.args ? ` ${command.args}` : ''} [FLAGS]`]
    : [`  ${path} COMMAND [FLAGS]`]
  const lines = [command.details ?? `${command.summary}.`, '', 'Usage:', ...usage]
  if (command.aliases?.length) {
    lines.push('', 'Aliases:', `  ${[command.name, ...command.aliases].join(', ')}`)
  }
  if (command.commands?.length) {
    const rows = command.commands.map(({ name, summary }): [string, string] => [name, summary])
    lines.push('', 'Commands:', ...columns(rows))
  }
  if (command.flags?.length) lines.push('', 'Flags:', ...columns(visible(command.flags)))
  lines.push('', 'Global flags:', ...columns(visible(globalFlagsOf(command))))
  return lines.join('\n')
}
