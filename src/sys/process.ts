import { spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { Fault } from '#core/fault.ts'

export interface RunResult {
  code: number
  stdout: string
  stderr: string
}

export interface RunOptions {
  input?: string | Buffer
  env?: Record<string, string>
  cwd?: string
  /** Two minutes when not given: nothing that waits for a program waits for ever. */
  timeoutMs?: number
  /** Ends the program with SIGKILL; it resolves as one that was killed. */
  signal?: AbortSignal
  /** Output past this is cut, so that a flood cannot fill the memory. */
  outputBytesMax?: number
}

const timeoutMsDefault = 120_000

/** Runs a program to its end. Never through a shell. A missing program is a Fault that names it. */
export function run(
  command: string,
  args: readonly string[],
  options: RunOptions = {},
): Promise<RunResult> {
  const { timeoutMs = timeoutMsDefault } = options
  return new Promise((resolve, reject) => {
    const child = spawn(command, [...args], {
      stdio: ['pipe', 'pipe', 'pipe'],
      ...(options.env ? { env: options.env } : {}),
      ...(options.cwd ? { cwd: options.cwd } : {}),
      timeout: timeoutMs,
      ...(options.signal ? { signal: options.signal } : {}),
      killSignal: 'SIGKILL',
    })
    const max = options.outputBytesMax ?? 8 * 1024 * 1024
    const collect = (stream: NodeJS.ReadableStream) => {
      const chunks: Buffer[] = []
      let size = 0
      stream.on('data', (chunk: Buffer) => {
        if (size < max) chunks.push(chunk.subarray(0, max - size))
        size += chunk.length
      })
      return () => Buffer.concat(chunks).toString('utf8')
    }
    const stdout = collect(child.stdout)
    const stderr = collect(child.stderr)
    child.on('error', (cause) => {
      if (options.signal?.aborted && child.pid !== undefined) return // It is on its way to its end.
      reject(
        new Fault(
          'native_failed',
          `cannot run ${command}: ${cause.message}; is it installed? try: hangar doctor`,
          { cause },
        ),
      )
    })
    child.on('close', (code, signal) => {
      const killed = signal ? `killed by ${signal} (limit ${timeoutMs} ms)` : ''
      resolve({ code: code ?? 128, stdout: stdout(), stderr: stderr() + killed })
    })
    child.stdin.on('error', () => {}) // A program that does not read its input closes it early: not an error.
    child.stdin.end(options.input)
  })
}

/** Like `run`, but an exit code other than 0 is a Fault with the program's own words. */
export async function runOk(
  command: string,
  args: readonly string[],
  options: RunOptions = {},
): Promise<string> {
  const result = await run(command, args, options)
  if (result.code !== 0) {
    const words = (result.stderr.trim() || result.stdout.trim()).slice(-2000)
    throw new Fault(
      'native_failed',
      `${command} ${args.slice(0, 3).join(' ')} failed with exit code ${result.code}: ${words}`,
    )
  }
  return result.stdout
}

/**
 * When a process started, in clock ticks since boot, or undefined when there is none (a zombie counts as none). A pid
 * alone may have been given to somebody else; pid and start time together name one process for ever.
 */
export function processStartTime(pid: number): number | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
    return fields[0] === 'Z' || fields[0] === 'X' ? undefined : Number(fields[19])
  } catch {
    return undefined
  }
}

export interface ProcessIdentity {
  pid: number
  startTime: number
}

export function isAlive(process: ProcessIdentity): boolean {
  return processStartTime(process.pid) === process.startTime
}

/** Sends a signal when that very process still lives. True when it did. */
export function signalProcess(identity: ProcessIdentity, signal: NodeJS.Signals): boolean {
  if (!isAlive(identity)) return false
  try {
    process.kill(identity.pid, signal)
    return true
  } catch {
    return false
  }
}
