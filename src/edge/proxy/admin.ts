import net from 'node:net'
import { Fault } from '#core/fault.ts'

/** The one writer to HAProxy's admin socket. */
export interface Admin {
  /** Runs the commands in order and gives each one's answer. Rejects with a Fault when HAProxy cannot be reached. */
  run(commands: readonly string[]): Promise<string[]>
  /** A command with a payload of several lines (`set ssl cert`). */
  runWithPayload(command: string, payload: string): Promise<string>
}

/** HAProxy reads a line of commands into one buffer (tune.bufsize); a batch stays well below it. */
const batchBytesMax = 8 * 1024
const answerBytesMax = 64 * 1024 * 1024
const answerTimeoutMs = 5_000

export function openAdmin(socketPath: string): Admin {
  let last: Promise<unknown> = Promise.resolve()
  // One exchange at a time, in the order asked: the order of commands is their meaning.
  const inTurn = <T>(work: () => Promise<T>): Promise<T> => {
    const mine = last.then(work, work)
    last = mine.catch(() => {})
    return mine
  }
  return {
    run: (commands) =>
      inTurn(async () => {
        const answers: string[] = []
        for (const batch of batchesOf(commands)) {
          const text = await exchange(socketPath, `${batch.join(';')}\n`)
          answers.push(...splitAnswers(text, batch.length))
        }
        return answers
      }),
    runWithPayload: (command, payload) =>
      inTurn(() => exchange(socketPath, `${command} <<\n${payload.trim()}\n\n`)),
  }
}

export function* batchesOf(commands: readonly string[]): Generator<string[]> {
  let batch: string[] = []
  let bytes = 0
  for (const command of commands) {
    if (batch.length > 0 && bytes + command.length + 1 > batchBytesMax) {
      yield batch
      batch = []
      bytes = 0
    }
    batch.push(command)
    bytes += command.length + 1
  }
  if (batch.length > 0) yield batch
}

/** Each answer is some lines and then an empty one; a command with nothing to say answers the empty line alone. */
export function splitAnswers(text: string, count: number): string[] {
  const answers: string[] = []
  let at = 0
  while (answers.length < count) {
    if (at >= text.length) {
      answers.push('')
    } else if (text[at] === '\n') {
      answers.push('')
      at += 1
    } else {
      const end = text.indexOf('\n\n', at)
      const stop = end === -1 ? text.length : end
      answers.push(text.slice(at, stop))
      at = stop + 2
    }
  }
  return answers
}

function exchange(socketPath: string, line: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = net.createConnection(socketPath)
    const chunks: Buffer[] = []
    let size = 0
    const fail = (why: string) => {
      socket.destroy()
      reject(new Fault('native_failed', `HAProxy's admin socket ${socketPath} ${why}`))
    }
    socket.setTimeout(answerTimeoutMs, () => fail(`gave no answer in ${answerTimeoutMs} ms`))
    socket.on('error', (error) => fail(`cannot be used: ${error.message}`))
    socket.on('data', (chunk: Buffer) => {
      size += chunk.length
      if (size > answerBytesMax) fail(`answered more than ${answerBytesMax} bytes`)
      else chunks.push(chunk)
    })
    // The answer ends where HAProxy closes: it does so after one line of commands.
    socket.on('end', () => resolve(Buffer.concat(chunks).toString('utf8')))
    socket.on('connect', () => socket.write(line))
  })
}
