import type { Readable, Writable } from 'node:stream'
import { isatty } from 'node:tty'
import pc from 'picocolors'
import { rawTerminal } from '#sys/raw-terminal.ts'

/** Everything of the outside that a command touches, so that a test can give it another one. */
export interface Io {
  stdout: Writable
  stderr: Writable
  stdin: Readable
  env: Record<string, string | undefined>
  cwd: string
  /** Where both stdin and stdout are one. */
  terminal?: Terminal
  /** True when a person can be asked: both ends are terminals and this is no CI job. */
  interactive: boolean
  /** True when stdin is a terminal: reading it would wait for typing. */
  stdinIsTerminal: boolean
  color: boolean
  /** Aborted by Ctrl-C, or when nobody reads the output any more. */
  signal: AbortSignal
}

/** The terminal that a person sits at. */
export interface Terminal {
  size: () => TerminalSize
  /** Returns what ends it. */
  onResize: (listener: () => void) => () => void
  /** Each key comes as it is, Ctrl-C too, and nothing is echoed, until what it returns is called. */
  raw: () => () => void
}

export interface TerminalSize {
  rows: number
  columns: number
}

/** Why the signal is aborted when nobody reads on: no error. */
export const outputClosed = new Error('nobody reads the output any more')

/** The Io of this process. Ctrl-C aborts the signal once; a second one ends the process at once. */
export function processIo(): Io {
  const abort = new AbortController()
  process.once('SIGINT', () => abort.abort(new Error('interrupted')))
  // `hangar logs | head`: the reader has seen enough.
  process.stdout.on('error', () => abort.abort(outputClosed))
  const outIsTerminal = isatty(1)
  const inIsTerminal = isatty(0)
  return {
    stdout: process.stdout,
    stderr: process.stderr,
    stdin: process.stdin,
    env: process.env,
    cwd: process.cwd(),
    interactive: outIsTerminal && inIsTerminal && process.env['CI'] === undefined,
    stdinIsTerminal: inIsTerminal,
    color: outIsTerminal && !process.env['NO_COLOR'],
    signal: abort.signal,
    ...(outIsTerminal && inIsTerminal ? { terminal: processTerminal(abort) } : {}),
  }
}

function processTerminal(abort: AbortController): Terminal {
  const { stdin, stdout } = process
  // Who ends us meanwhile must not leave a terminal behind that echoes nothing.
  const end = () => abort.abort(new Error('ended by a signal'))
  return {
    // One that does not know its size says 0.
    size: () => ({ rows: stdout.rows || 24, columns: stdout.columns || 80 }),
    onResize: (listener) => {
      stdout.on('resize', listener)
      return () => void stdout.off('resize', listener)
    },
    raw: () => {
      const restore = rawTerminal(stdin)
      for (const name of ['SIGTERM', 'SIGHUP']) process.on(name, end)
      return () => {
        restore()
        for (const name of ['SIGTERM', 'SIGHUP']) process.off(name, end)
      }
    },
  }
}

export type Colors = ReturnType<typeof pc.createColors>

/** Colours that do nothing where the output is no terminal. */
export function colorsOf(io: Io): Colors {
  return pc.createColors(io.color)
}

/** One line on stdout. */
export function say(io: Io, line = ''): void {
  io.stdout.write(`${line}\n`)
}

/** One line on stderr. */
export function complain(io: Io, line: string): void {
  io.stderr.write(`${line}\n`)
}

/** JSON as flyctl prints it: four spaces. */
export function sayJson(io: Io, value: unknown): void {
  say(io, JSON.stringify(value, null, 4))
}

/** All of stdin as text. */
export async function readStdin(io: Io): Promise<string> {
  const chunks: Buffer[] = []
  for await (const chunk of io.stdin) chunks.push(Buffer.from(chunk as Uint8Array))
  return Buffer.concat(chunks).toString('utf8')
}
