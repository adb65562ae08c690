import { createWriteStream, mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Transform, type Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { Fault } from '#core/fault.ts'
import { limits } from '#core/limits.ts'
import { run } from '#sys/process.ts'

/** One build's folder: its context, its secrets, its registry credentials. Mode 0700; removed with the build. */
export interface WorkDir {
  configDir: string
  contextFile: string
  /** `--secret` arguments, each secret in a file of mode 0600. SEC-9. */
  secretArgs: string[]
  remove(): void
}

export function makeWorkDir(
  dir: string,
  options: {
    registryHost: string
    password: string
    secrets: Record<string, string>
  },
): WorkDir {
  const configDir = join(dir, 'docker')
  const secretsDir = join(dir, 'secrets')
  for (const folder of [dir, configDir, secretsDir]) {
    mkdirSync(folder, { recursive: true, mode: 0o700 })
  }
  const auth = Buffer.from(`build:${options.password}`).toString('base64')
  writeFileSync(
    join(configDir, 'config.json'),
    JSON.stringify({ auths: { [options.registryHost]: { auth } } }),
    { mode: 0o600 },
  )
  const secretArgs = Object.entries(options.secrets).flatMap(([id, value], index) => {
    const path = join(secretsDir, String(index))
    writeFileSync(path, value, { mode: 0o600 })
    return ['--secret', `id=${id},src=${path}`]
  })
  return {
    configDir,
    contextFile: join(dir, 'context.tar'),
    secretArgs,
    remove: () => rmSync(dir, { recursive: true, force: true }),
  }
}

/** Writes the tar as it comes. Fault `too_large` past the limit. */
export async function spoolContext(
  body: Readable,
  file: string,
  signal: AbortSignal,
): Promise<number> {
  let bytes = 0
  const counted = new Transform({
    transform(chunk: Buffer, _encoding, callback) {
      bytes += chunk.length
      if (bytes <= limits.buildContextBytesMax) return callback(null, chunk)
      const most = limits.buildContextBytesMax
      callback(
        new Fault(
          'too_large',
          `the build context is larger than ${most} bytes; leave files out with .dockerignore`,
        ),
      )
    },
  })
  await pipeline(body, counted, createWriteStream(file, { mode: 0o600 }), { signal })
  return bytes
}

/** The text of one file of the context; empty when it cannot be read. Only for telling the line of an error. */
export async function readFromContext(contextFile: string, name: string): Promise<string> {
  for (const path of [name, `./${name}`]) {
    const { code, stdout } = await run('tar', ['-xOf', contextFile, '--', path], {
      timeoutMs: 20_000,
      outputBytesMax: 1024 * 1024,
    })
    if (code === 0) return stdout
  }
  return ''
}
