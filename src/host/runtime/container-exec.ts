import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { readTextFile, removeFile } from '#sys/files.ts'
import { processStartTime } from '#sys/process.ts'
import type { ExecRequest, ExecResult } from './driver.ts'
import { familyOf } from './processes.ts'

export interface ContainerExec {
  id: string
  runtime: string
  stateDir: string
  /** Where the short-lived files of one exec go. */
  dir: string
  /** The OCI process object. */
  process: object
  request: Pick<ExecRequest, 'stdin' | 'timeoutMs' | 'outputBytesMax'>
  /** Host pids of all processes of the machine, now. */
  processes(): number[]
}

/**
 * A background process of the command may hold the output open after the command ended, and runc waits for it. After
 * this long it is ended, so that the command's own exit code can be told.
 */
const lastWordsMs = 500
const lookEveryMs = 100

function collector(stream: NodeJS.ReadableStream, bytesMax: number): () => string {
  const chunks: Buffer[] = []
  let size = 0
  stream.on('data', (chunk: Buffer) => {
    if (size < bytesMax) chunks.push(chunk.subarray(0, bytesMax - size))
    size += chunk.length
  })
  return () => Buffer.concat(chunks).toString('utf8')
}

/** Kills the command of an exec and all that it started, until none is left. */
function killFamily(exec: ContainerExec, pidFile: string): void {
  const leader = Number(readTextFile(pidFile) ?? 0)
  if (!leader) return
  for (let round = 0; round < 5; round++) {
    const family = familyOf(leader, exec.processes())
    if (family.length === 0) return
    for (const pid of family) {
      try {
        process.kill(pid, 'SIGKILL')
      } catch {
        // It ended by itself.
      }
    }
  }
}

/** Runs one process inside a running container by the OCI runtime's exec, and waits for its end or its time limit. */
export async function execInContainer(exec: ContainerExec): Promise<ExecResult> {
  const base = join(exec.dir, `exec-${randomBytes(6).toString('hex')}`)
  const processFile = `${base}.json`
  const pidFile = `${base}.pid`
  writeFileSync(processFile, JSON.stringify(exec.process), { mode: 0o600 })
  try {
    return await runExec(exec, { processFile, pidFile })
  } finally {
    removeFile(processFile)
    removeFile(pidFile)
  }
}

function runExec(
  exec: ContainerExec,
  files: { processFile: string; pidFile: string },
): Promise<ExecResult> {
  const args = ['--root', exec.stateDir, 'exec']
  args.push('--process', files.processFile, '--pid-file', files.pidFile, exec.id)
  return new Promise((resolve, reject) => {
    const child = spawn(exec.runtime, args, { stdio: ['pipe', 'pipe', 'pipe'] })
    const stdout = collector(child.stdout, exec.request.outputBytesMax)
    const stderr = collector(child.stderr, exec.request.outputBytesMax)
    let timedOut = false
    const timer = setTimeout(() => {
      timedOut = true
      killFamily(exec, files.pidFile)
      child.kill('SIGKILL')
    }, exec.request.timeoutMs)
    let lookedGone = 0
    const looking = setInterval(() => {
      const leader = Number(readTextFile(files.pidFile) ?? 0)
      const gone = child.exitCode !== null || (leader > 0 && !processStartTime(leader))
      if (!gone || ++lookedGone * lookEveryMs < lastWordsMs) return
      killFamily(exec, files.pidFile)
      if (child.exitCode === null) return
      child.stdout.destroy()
      child.stderr.destroy()
    }, lookEveryMs)
    child.on('error', (error) => {
      clearTimeout(timer)
      clearInterval(looking)
      reject(error)
    })
    child.on('close', (code, signalName) => {
      clearTimeout(timer)
      clearInterval(looking)
      const exitCode = timedOut ? 124 : (code ?? (signalName ? 137 : 1))
      const signal = !timedOut && exitCode > 128 && exitCode <= 192 ? exitCode - 128 : 0
      resolve({ exitCode, signal, stdout: stdout(), stderr: stderr(), timedOut })
    })
    child.stdin.on('error', () => {}) // A command that does not read its input closes it early.
    child.stdin.end(exec.request.stdin)
  })
}
