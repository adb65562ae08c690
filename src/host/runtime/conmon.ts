import { spawn } from 'node:child_process'
import type { Readable, Writable } from 'node:stream'
import { z } from 'zod'
import { Fault } from '#core/fault.ts'
import { processStartTime, type ProcessIdentity } from '#sys/process.ts'

/**
 * conmon: the small process that stays with a container. It starts the OCI runtime, writes the container's output into
 * the log and its exit code into the exits folder, and outlives us.
 */
export interface ConmonRequest {
  id: string
  runtime: string
  stateDir: string
  bundle: string
  pidFile: string
  persistDir: string
  exitsDir: string
  logFile: string
  logBytesMax: number
  tty: boolean
  timeoutMs: number
  /** Called when conmon is gone; only while we live. */
  onGone(): void
}

const answerSchema = z.object({ data: z.int(), message: z.string().optional() })

function conmonArgs(request: ConmonRequest): string[] {
  return [
    ['--api-version', '1', '--sync', '--full-attach', '--no-sync-log', '--log-level', 'error'],
    ['--cid', request.id, '--cuuid', request.id, '--name', request.id],
    ['--runtime', request.runtime, `--runtime-arg=--root=${request.stateDir}`],
    ['--bundle', request.bundle, '--container-pidfile', request.pidFile],
    ['--persist-dir', request.persistDir, '--exit-dir', request.exitsDir],
    ['--log-path', `k8s-file:${request.logFile}`],
    ['--log-size-max', String(request.logBytesMax)],
    request.tty ? ['--terminal'] : [],
  ].flat()
}

/** Everything until `done` says that it is enough, the stream ends, or the time is over. */
function readAnswer(stream: Readable, timeoutMs: number): Promise<string> {
  return new Promise((resolve) => {
    let text = ''
    const finish = () => {
      clearTimeout(timer)
      stream.destroy()
      resolve(text)
    }
    const timer = setTimeout(finish, timeoutMs)
    stream.on('data', (chunk: Buffer) => {
      text += chunk.toString('utf8')
      if (text.includes('\n') || text.length > 64 * 1024) finish()
    })
    stream.on('end', finish)
    stream.on('error', finish)
  })
}

function parseAnswer(text: string): z.infer<typeof answerSchema> | undefined {
  try {
    return answerSchema.safeParse(JSON.parse(text)).data
  } catch {
    return undefined
  }
}

export interface Conmon {
  /** To be written down before anything else: it does nothing until `create`. */
  identity: ProcessIdentity
  /**
   * Lets it create the container from the bundle, and returns the container's process, which waits for the runtime's
   * `start`. A Fault (`native_failed`) carries the runtime's own words; conmon is dead by then.
   */
  create(): Promise<ProcessIdentity>
}

/** Starts conmon and leaves it waiting, so that its own start costs nothing while the root is being built. */
export function spawnConmon(request: ConmonRequest): Conmon {
  const child = spawn('conmon', conmonArgs(request), {
    cwd: request.bundle,
    detached: true,
    stdio: ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'],
    env: { PATH: process.env['PATH'] ?? '', _OCI_SYNCPIPE: '3', _OCI_STARTPIPE: '4' },
  })
  const [, , , answerPipe, goPipe] = child.stdio as unknown as [0, 0, 0, Readable, Writable]
  child.on('error', () => {}) // Reported below: no pid.
  child.on('exit', () => {
    goPipe.destroy()
    request.onGone()
  })
  child.unref()
  if (child.pid === undefined) {
    throw new Fault('native_failed', 'cannot run conmon; is it installed? try: hangar doctor')
  }
  goPipe.on('error', () => {}) // conmon ended early: its answer says so.
  const identity = { pid: child.pid, startTime: processStartTime(child.pid) ?? 0 }
  const create = async () => {
    const answered = readAnswer(answerPipe, request.timeoutMs)
    goPipe.end('\n')
    const text = await answered
    const answer = parseAnswer(text)
    const startTime = answer && answer.data > 0 ? processStartTime(answer.data) : undefined
    if (answer && startTime !== undefined) return { pid: answer.data, startTime }
    child.kill('SIGKILL')
    const words = answer?.message ?? (text.trim() || `no answer within ${request.timeoutMs} ms`)
    throw new Fault('native_failed', `no container for machine ${request.id}: ${words.trim()}`)
  }
  return { identity, create }
}
