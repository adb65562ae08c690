import { z } from 'zod'
import { Fault } from '#core/fault.ts'
import { limits } from '#core/limits.ts'

/**
 * A program in a machine with its streams open, over a WebSocket. What runs is in the query. Then:
 *
 *   to the program     binary: its input · text: `ProgramInput` as JSON
 *   from the program   binary: a byte that names the stream (`programStreams`), then output · text: one `ProgramOutcome`, the last
 *
 * Whoever closes the WebSocket before that ends the program.
 */
export const programStreams = { stdout: 1, stderr: 2 } as const

const size = { rows: z.int().min(1).max(10_000), columns: z.int().min(1).max(10_000) }

export const programInputSchema = z.discriminatedUnion('type', [
  /** No more input. */
  z.object({ type: z.literal('eof') }),
  z.object({ type: z.literal('resize'), ...size }),
  z.object({ type: z.literal('signal'), signal: z.string() }),
])
export type ProgramInput = z.infer<typeof programInputSchema>

export const programOutcomeSchema = z.discriminatedUnion('type', [
  z.object({
    type: z.literal('exit'),
    exit_code: z.int(),
    signal: z.int(),
    timed_out: z.boolean(),
  }),
  z.object({ type: z.literal('error'), error: z.string(), status: z.string() }),
])
export type ProgramOutcome = z.infer<typeof programOutcomeSchema>

export const programQuerySchema = z.object({
  /** One line that the host splits into words. */
  cmd: z.string().optional(),
  command: z.array(z.string()),
  tty: z.boolean(),
  rows: size.rows.default(24),
  columns: size.columns.default(80),
  /** The kind of terminal, as TERM. */
  term: z.string().max(64).default('xterm'),
  /** Seconds. */
  timeout: z.int().min(1).max(limits.programSecondsMax).default(limits.programSecondsMax),
})
export type ProgramQuery = z.infer<typeof programQuerySchema>

const number = (text: string | null) => (text === null ? undefined : Number(text))

/** @throws Fault `invalid` for one that names no program or is out of bounds */
export function readProgramQuery(url: string): ProgramQuery {
  const query = new URL(url, 'http://localhost').searchParams
  const parsed = programQuerySchema.safeParse({
    cmd: query.get('cmd') ?? undefined,
    command: query.getAll('command'),
    tty: query.get('tty') === 'true',
    rows: number(query.get('rows')),
    columns: number(query.get('columns')),
    term: query.get('term') ?? undefined,
    timeout: number(query.get('timeout')),
  })
  if (!parsed.success) {
    const [issue] = parsed.error.issues
    throw new Fault('invalid', `${issue?.path.join('.')}: ${issue?.message}`)
  }
  if (!parsed.data.cmd && parsed.data.command.length === 0) {
    throw new Fault(
      'invalid',
      'name a program: "cmd", one line, or "command" for each of its words',
    )
  }
  return parsed.data
}

/** @throws Fault `too_large` for what does not fit the head of a request */
export function writeProgramQuery(given: Partial<ProgramQuery>): string {
  const query = new URLSearchParams()
  const { command = [], ...rest } = given
  for (const word of command) query.append('command', word)
  for (const [name, value] of Object.entries(rest)) {
    if (value !== undefined) query.set(name, String(value))
  }
  const text = query.toString()
  if (text.length <= limits.programQueryBytesMax) return text
  throw new Fault(
    'too_large',
    `the command is too long for this; give it less than ${limits.programQueryBytesMax} bytes, or send it as input: … -i ID sh < FILE`,
  )
}
