import { spawn } from 'node:child_process'
import { closeSync, openSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { PassThrough } from 'node:stream'
import { Fault } from '#core/fault.ts'

/** Debian's client: it has BuildKit built in, which newer clients take from a plugin. */
const dockerCommand = '/usr/bin/docker'

export interface DockerRun {
  dockerHost: string
  /** Holds the registry credentials of this run alone. */
  configDir: string
  args: readonly string[]
  /** Read by the client as it stands: no byte of it passes through us. */
  stdinFile?: string
  signal: AbortSignal
}

/** Runs the docker client and yields its output line by line; returns its exit code. Aborting ends it. */
export async function* docker(options: DockerRun): AsyncGenerator<string, number> {
  const stdin = options.stdinFile === undefined ? undefined : openSync(options.stdinFile, 'r')
  const child = spawn(dockerCommand, [...options.args], {
    stdio: [stdin ?? 'ignore', 'pipe', 'pipe'],
    env: {
      PATH: process.env['PATH'] ?? '/usr/bin:/bin',
      HOME: options.configDir,
      DOCKER_BUILDKIT: '1',
      DOCKER_CONFIG: options.configDir,
      DOCKER_HOST: options.dockerHost,
    },
  })
  if (stdin !== undefined) closeSync(stdin)
  const output = new PassThrough()
  let open = 2
  let killTimer: NodeJS.Timeout | undefined
  for (const stream of [child.stdout, child.stderr]) {
    if (!stream) continue
    stream.pipe(output, { end: false })
    stream.on('close', () => {
      if (--open === 0) output.end()
    })
  }
  const ended = new Promise<number>((resolve, reject) => {
    child.on('error', (cause) => {
      output.end()
      const text = `cannot run ${dockerCommand}: ${cause.message}; try: hangar doctor`
      reject(new Fault('native_failed', text, { cause }))
    })
    child.on('close', (code) => resolve(code ?? 128))
  })
  // Told below, when the output has been read.
  ended.catch(() => {})
  const onAbort = () => {
    child.kill('SIGTERM')
    killTimer = setTimeout(() => child.kill('SIGKILL'), 5_000)
  }
  if (options.signal.aborted) onAbort()
  else options.signal.addEventListener('abort', onAbort, { once: true })
  try {
    yield* createInterface({ input: output })
    return await ended
  } finally {
    options.signal.removeEventListener('abort', onAbort)
    if (child.exitCode === null && child.signalCode === null) onAbort()
    await ended.catch(() => {})
    clearTimeout(killTimer)
  }
}
