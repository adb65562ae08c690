import assert from 'node:assert/strict'
import { spawn, type ChildProcess } from 'node:child_process'
import { randomInt } from 'node:crypto'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import type { Machine } from '#spec/machine.ts'
import type { RuntimeKind } from '#spec/runtime.ts'
import type { HostSettings } from '#spec/settings.ts'
import { callJson, httpRequest, readBody } from '#sys/http-client.ts'
import { run } from '#sys/process.ts'
import { eventually } from '#sys/test-support.ts'
import { busyboxTree } from '../images/busybox.ts'
import { createPusher, layer } from '../images/push.ts'
import { startImageRegistry } from '../images/registry.ts'

const key = 'cluster-key-of-a-test'
const root = resolve(import.meta.dirname, '../..')

/** A real host process over the real runtime, network, images and volumes, that can be killed and started again. */
export interface HostProcess {
  id: string
  /** All that it has is below. */
  dir: string
  /** Where its API is, as other hosts are told. */
  api: string
  /** Of a busybox with `config`. */
  image: string
  registry: string
  call<T = Machine>(method: string, path: string, body?: unknown): Promise<T>
  /** The whole answer as text. */
  read(path: string): Promise<string>
  start(): Promise<void>
  /** Its exit code; null when the signal ended it. */
  end(signal: NodeJS.Signals): Promise<number | null>
  /** Takes everything down, that of a killed one too; no mount may be left. */
  close(): Promise<void>
}

export async function openHostProcess(options: {
  name: string
  runtime: RuntimeKind
  /** Of the image. */
  config: { Env: string[]; Cmd: string[] }
  overcommit?: number
}): Promise<HostProcess> {
  const { name, runtime, config, overcommit = 1 } = options
  const id = `${name}-${process.pid}-${runtime}`
  const dir = mkdtempSync(join(tmpdir(), `hangar-${name}-`))
  const api = `unix:${dir}/host.sock`
  const registry = await startImageRegistry({ dir: join(dir, 'registry') })
  const layers = [layer(busyboxTree('NAME=test\n'))]
  await createPusher(registry.url).image('busybox', 'latest', { layers, config })
  writeFileSync(join(dir, 'cluster.key'), key)
  const settings: HostSettings = {
    id,
    number: randomInt(1, 1 << 30),
    region: 'ord',
    dir: join(dir, 'host'),
    listen: api,
    // Nobody is there: a bus that is down stops no host.
    nats_url: 'nats://127.0.0.1:9',
    cluster_key_file: join(dir, 'cluster.key'),
    runtime,
    kernel_dir: join(root, 'build/kernel'),
    mirrors: {},
    registries: [{ host: registry.host, username: '', password: '', insecure: true }],
    cpu_overcommit: overcommit,
    // Below 10.64: no cloud of this machine chooses there.
    ipv4_block: `10.${randomInt(1, 32)}.0.0/16`,
  }
  writeFileSync(join(dir, 'settings.json'), JSON.stringify(settings))
  let child: ChildProcess
  let words = ''
  const request = (method: string, path: string) => ({
    method,
    path,
    headers: { authorization: `Bearer ${key}` },
    timeoutMs: 120_000,
  })
  const host: HostProcess = {
    id,
    dir,
    api,
    image: `${registry.host}/busybox`,
    registry: registry.host,
    call: (method, path, body) =>
      callJson(api, { ...request(method, path), ...(body === undefined ? {} : { body }) }),
    async read(path) {
      const { body } = await httpRequest(api, request('GET', path))
      return (await readBody(body, 1e6)).toString()
    },
    async start() {
      const args = [join(root, 'bin/hangar.ts'), 'host', '--settings', join(dir, 'settings.json')]
      child = spawn(process.execPath, args, {
        stdio: ['ignore', 'inherit', 'pipe'],
        env: { ...process.env, HANGAR_LOG: 'warn' },
      })
      child.stderr?.on('data', (chunk: Buffer) => (words += chunk.toString()))
      await eventually(
        () => `the host answers:\n${words}`,
        async () => {
          assert.equal(child.exitCode, null, `the host did not start:\n${words}`)
          return (await host.call('GET', '/v1/host').catch(() => undefined)) !== undefined
        },
      )
    },
    async end(signal) {
      const ended = once(child, 'exit')
      child.kill(signal)
      await ended
      return child.exitCode
    },
    async close() {
      if (child.exitCode !== null || child.signalCode !== null) await host.start()
      await host.call('POST', '/v1/down')
      await host.end('SIGTERM')
      await registry.close()
      const mounts = await run('sh', ['-c', `grep -c ${dir} /proc/mounts`])
      assert.equal(mounts.stdout.trim(), '0', 'no mount is left')
      rmSync(dir, { recursive: true, force: true })
    },
  }
  await host.start()
  return host
}
