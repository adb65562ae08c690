import { Fault, isFault, messageOf } from '#core/fault.ts'
import { limits } from '#core/limits.ts'
import type { ExecInput, ExecResult } from '#spec/machine.ts'
import { stopSignals } from '#spec/machine-config.ts'
import {
  programInputSchema,
  programStreams,
  type ProgramInput,
  type ProgramOutcome,
  type ProgramQuery,
} from '#spec/program.ts'
import { sendMessage, type WebSocket } from '#sys/web-socket.ts'
import type { Program } from '#host/runtime/index.ts'
import type { Agent } from './agent.ts'
import { splitWords } from './command.ts'
import { requireRunning } from './verbs.ts'

const verb = 'run a command in'

function argvOf({ cmd, command }: Pick<ExecInput, 'cmd' | 'command'>): string[] {
  const argv = command?.length ? command : splitWords(cmd ?? '')
  if (argv.length === 0) throw new Fault('invalid', 'command must name a program')
  return argv
}

/** A program in the machine, to its end; one that fails is an answer and not an error. */
export async function execInMachine(
  agent: Agent,
  id: string,
  input: ExecInput,
): Promise<ExecResult> {
  requireRunning(agent, id, verb)
  const argv = argvOf(input)
  const seconds = Math.min(input.timeout ?? limits.execSecondsDefault, limits.execSecondsMax)
  const over = agent.execs.begin(id)
  try {
    const request = {
      argv,
      ...(input.stdin ? { stdin: input.stdin } : {}),
      timeoutMs: seconds * 1000,
      outputBytesMax: limits.execOutputBytesMax,
    }
    const result = await agent.driver.exec(id, request).catch((error: unknown) => {
      refuseIfStopped(agent, id, error)
      throw error
    })
    if (result.timedOut) {
      throw new Fault('timeout', `the command did not end in ${seconds} s and was killed`)
    }
    return { exit_code: result.exitCode, stdout: result.stdout, stderr: result.stderr }
  } finally {
    over()
  }
}

/**
 * A stop of the machine ends what runs in it, by a signal or by a connection that breaks: whoever sat there hears of the stop.
 *
 * @throws Fault `precondition_failed` unless the machine is started
 */
function refuseIfStopped(agent: Agent, id: string, cause?: unknown): void {
  const state = agent.store.machines.get(id)?.life.state ?? 'destroyed'
  if (state === 'started') return
  const words = `machine ${id} is ${state}, which ended what ran there`
  throw new Fault('precondition_failed', words, { cause })
}

/** The same with open streams. */
export async function openInMachine(
  agent: Agent,
  id: string,
  query: ProgramQuery,
): Promise<Program> {
  requireRunning(agent, id, verb)
  const argv = argvOf(query)
  const { tty, term, rows, columns, timeout } = query
  const over = agent.execs.begin(id)
  try {
    const program = await agent.driver.openProgram(id, {
      argv,
      ...(tty ? { tty: { rows, columns }, env: { TERM: term } } : {}),
      timeoutMs: timeout * 1000,
    })
    program.exited.then(over, over)
    const exited = program.exited.then(
      (end) => {
        if (end.signal !== 0 && !end.timedOut) refuseIfStopped(agent, id)
        return end
      },
      (error: unknown) => {
        refuseIfStopped(agent, id, error)
        throw error
      },
    )
    exited.catch(() => {}) // Who serves it hears it.
    return { ...program, exited }
  } catch (error) {
    over()
    throw error
  }
}

/** Carries a program's streams over a socket (spec/program.ts); the end of one is the end of the other. */
export async function serveProgram(program: Program, socket: WebSocket): Promise<void> {
  socket.on('message', (data: Buffer, binary) => takeMessage(program, socket, { data, binary }))
  socket.on('close', () => program.close())
  // One that has ended takes no input, and must hear that its client has left.
  const goOn = () => socket.resume()
  program.exited.then(goOn, goOn)
  socket.resume()
  // It may have left before we listened.
  if (socket.readyState !== socket.OPEN) program.close()
  try {
    await Promise.all([
      sendAll(socket, program.stdout, programStreams.stdout),
      sendAll(socket, program.stderr, programStreams.stderr),
    ])
    await sendMessage(socket, JSON.stringify(await outcomeOf(program)))
    socket.close(1000)
  } catch {
    program.close()
    socket.terminate()
  }
}

async function outcomeOf(program: Program): Promise<ProgramOutcome> {
  try {
    const { exitCode, signal, timedOut } = await program.exited
    return { type: 'exit', exit_code: exitCode, signal, timed_out: timedOut }
  } catch (error) {
    const status = isFault(error) ? error.code : 'internal'
    return { type: 'error', error: messageOf(error), status }
  }
}

async function sendAll(
  socket: WebSocket,
  output: AsyncIterable<Buffer>,
  stream: number,
): Promise<void> {
  const tag = Buffer.of(stream)
  for await (const chunk of output) await sendMessage(socket, Buffer.concat([tag, chunk]))
}

function takeMessage(
  program: Program,
  socket: WebSocket,
  { data, binary }: { data: Buffer; binary: boolean },
): void {
  if (binary) {
    if (program.stdin.write(data) || socket.isPaused) return
    socket.pause()
    program.stdin.once('drain', () => socket.resume())
    return
  }
  const input = readInput(data)
  if (input?.type === 'eof') program.stdin.end()
  else if (input?.type === 'resize') program.resize(input)
  else if (input && isSignal(input.signal)) program.signal(input.signal)
  else socket.close(1008, 'a message of this client is none that there is')
}

const isSignal = (name: string): name is NodeJS.Signals =>
  (stopSignals as readonly string[]).includes(name)

function readInput(data: Buffer): ProgramInput | undefined {
  try {
    return programInputSchema.safeParse(JSON.parse(data.toString('utf8'))).data
  } catch {
    return undefined
  }
}
