import type { Api } from './api.ts'
import type { Io } from './io.ts'

/** One flag of a command, as flyctl names it. */
export interface Flag {
  name: string
  short?: string
  /**
   * `switch`: present or not, also `--x=false`. `text`: one value. `texts`: may be repeated. `list`: may be repeated and
   * split at commas. `number`: one number.
   */
  kind: 'switch' | 'text' | 'texts' | 'list' | 'number'
  summary: string
  /** What stands for the value in the help: `NAME`. */
  value?: string
  /** Text shown as the default. */
  fallback?: string
  /** The value of a flag given without one: `--autostop` means `--autostop=stop`. */
  bare?: string
  aliases?: readonly string[]
  /** Accepted for flyctl's sake and left out of the help. */
  hidden?: boolean
}

export interface Command {
  name: string
  aliases?: readonly string[]
  summary: string
  /** More than a line, for the command's own help. */
  details?: string
  /** Positional arguments as the usage line shows them. */
  args?: string
  argsMin?: number
  argsMax?: number
  flags?: readonly Flag[]
  commands?: readonly Command[]
  /** Resolves with the exit code. */
  run?: (call: Call) => Promise<number>
}

/** The flags of one call by name. Asking for one that the command does not declare is a bug and throws. */
export interface FlagValues {
  given(name: string): boolean
  /** A switch; `fallback` when it was not given. */
  on(name: string, fallback?: boolean): boolean
  text(name: string): string | undefined
  texts(name: string): string[]
  number(name: string): number | undefined
}

/** What a command gets. */
export interface Call {
  io: Io
  /** `hangar apps list`. */
  path: string
  args: string[]
  flags: FlagValues
  /** $HANGAR_HOME. */
  home: string
  /** The cloud this call speaks to; a Fault when no token is known. */
  api: () => Api
  /** The app that `-a`, FLY_APP or the fly.toml of the folder names, else the app of the machine; a Fault when none does. */
  appName: (machine?: string) => Promise<string>
}
