import { Fault, faultCodes, type FaultCode } from '#core/fault.ts'
import {
  programOutcomeSchema,
  programStreams,
  writeProgramQuery,
  type ProgramInput,
  type ProgramOutcome,
  type ProgramQuery,
} from '#spec/program.ts'
import type { WebSocket } from '#sys/web-socket.ts'
import { part } from './api.ts'
import type { Call } from './command.ts'
import { complain, type Io } from './io.ts'

export interface ProgramWish {
  app: string
  machine: string
  /** What runs; a terminal is as large as ours. */
  query: Partial<Pick<ProgramQuery, 'cmd' | 'command' | 'timeout'>>
  tty: boolean
}

/** Our own input may be this far ahead of the program. */
const aheadBytesMax = 1024 * 1024
const messageBytes = 64 * 1024

/**
 * A program in a machine at our own streams, or at our terminal. Resolves with its exit code; however it ends, the terminal is
 * as it was before. When this command is ended, so is the program.
 */
export async function runProgram(call: Call, wish: ProgramWish): Promise<number> {
  const { io } = call
  const { terminal } = io
  if (wish.tty && !terminal) {
    throw new Fault(
      'bad_request',
      'stdin and stdout are no terminal; leave out --tty, -i alone hands on what is piped in',
    )
  }
  const term = io.env['TERM']
  const shown = wish.tty && terminal ? { ...terminal.size(), ...(term ? { term } : {}) } : {}
  const query = writeProgramQuery({ ...wish.query, tty: wish.tty, ...shown })
  const { app, machine } = wish
  const path = `/api/v1/apps/${part(app)}/machines/${part(machine)}/exec?${query}`
  const socket = await call.api().socket(path)
  const tell = (input: ProgramInput) => socket.send(JSON.stringify(input))
  const unwatch = wish.tty
    ? terminal?.onResize(() => tell({ type: 'resize', ...terminal.size() }))
    : undefined
  const restore = wish.tty ? terminal?.raw() : undefined
  try {
    const ended = outcomeOf(io, socket)
    handOnInput(io, socket, () => tell({ type: 'eof' }))
    socket.resume()
    return exitCodeOf(io, await ended)
  } finally {
    restore?.()
    unwatch?.()
    io.stdin.pause()
    socket.terminate()
  }
}

function handOnInput(io: Io, socket: WebSocket, atEnd: () => void): void {
  io.stdin.on('data', (chunk: Buffer | string) => {
    const bytes = Buffer.from(chunk as string)
    for (let at = 0; at < bytes.length; at += messageBytes) {
      socket.send(bytes.subarray(at, at + messageBytes), () => io.stdin.resume())
    }
    if (socket.bufferedAmount > aheadBytesMax) io.stdin.pause()
  })
  io.stdin.on('end', atEnd)
}

/** Shows what comes until the last word. */
function outcomeOf(io: Io, socket: WebSocket): Promise<ProgramOutcome> {
  return new Promise((resolve, reject) => {
    socket.on('message', (data: Buffer, binary) => {
      if (!binary) {
        const outcome = programOutcomeSchema.safeParse(JSON.parse(data.toString('utf8')))
        if (outcome.success) resolve(outcome.data)
        else reject(new Fault('internal', 'the cloud said something that is none of its words'))
        return
      }
      const output = data[0] === programStreams.stderr ? io.stderr : io.stdout
      if (output.write(data.subarray(1)) || socket.isPaused) return
      socket.pause()
      output.once('drain', () => socket.resume())
    })
    socket.on('close', (_code, reason) => {
      const why = reason.toString('utf8')
      const words = `the connection to the machine broke${why ? ` (${why})` : ''}; what ran there was ended`
      reject(io.signal.aborted ? io.signal.reason : new Fault('host_unreachable', words))
    })
  })
}

function exitCodeOf(io: Io, outcome: ProgramOutcome): number {
  if (outcome.type === 'exit') {
    if (outcome.timed_out) complain(io, 'Error: the command ran past its time and was killed')
    return outcome.exit_code
  }
  const code = faultCodes.find((one): one is FaultCode => one === outcome.status) ?? 'internal'
  throw new Fault(code, outcome.error)
}
