import { spawn } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { eventually, freePort } from '#sys/test-support.ts'

export interface ImageRegistry {
  /** `http://127.0.0.1:PORT`, what a mirror setting wants. */
  url: string
  /** `127.0.0.1:PORT`, as it stands in image references. */
  host: string
  close(): Promise<void>
}

export interface ImageRegistryOptions {
  /** Storage; several registries may read one folder at the same time. */
  dir: string
  port?: number
  /** Lines for the `auth:` section of its configuration, indented by two spaces. */
  auth?: string
}

function configuration(options: { dir: string; port: number; auth?: string }): string {
  return `version: 0.1
log: {level: error, accesslog: {disabled: true}}
storage:
  filesystem: {rootdirectory: ${options.dir}}
  delete: {enabled: true}
http: {addr: '127.0.0.1:${options.port}', secret: only-for-tests}
${options.auth ? `auth:\n${options.auth}` : ''}`
}

/** Starts Debian's docker-registry on loopback and waits until it answers. `close` stops it; the storage stays. */
export async function startImageRegistry(options: ImageRegistryOptions): Promise<ImageRegistry> {
  mkdirSync(options.dir, { recursive: true })
  const port = options.port ?? (await freePort())
  const folder = mkdtempSync(join(tmpdir(), 'hangar-registry-'))
  const configFile = join(folder, 'config.yml')
  writeFileSync(configFile, configuration({ ...options, port }))
  const child = spawn('docker-registry', ['serve', configFile], {
    stdio: ['ignore', 'ignore', 'pipe'],
  })
  let words = ''
  child.stderr.on('data', (chunk: Buffer) => (words = (words + chunk.toString()).slice(-2000)))
  let dead: string | undefined
  const ended = new Promise<void>((resolve) => {
    child.on('error', (error) => {
      dead = `cannot run docker-registry: ${error.message}`
      resolve()
    })
    child.on('close', (code) => {
      dead ??= `docker-registry ended with exit code ${code}: ${words}`
      resolve()
    })
  })
  const onExit = () => {
    child.kill('SIGKILL')
    rmSync(folder, { recursive: true, force: true })
  }
  process.on('exit', onExit)
  const close = async () => {
    child.kill('SIGTERM')
    await ended
    process.off('exit', onExit)
    rmSync(folder, { recursive: true, force: true })
  }
  const url = `http://127.0.0.1:${port}`
  try {
    await eventually(`docker-registry answers on ${url}`, async () => {
      if (dead !== undefined) throw new Error(dead)
      const { status } = await fetch(`${url}/v2/`).catch(() => ({ status: 0 }))
      return status === 200 || status === 401
    })
  } catch (error) {
    await close()
    throw new Error(`docker-registry: ${words}`, { cause: error })
  }
  return { url, host: `127.0.0.1:${port}`, close }
}
