import assert from 'node:assert/strict'
import { spawn, type ChildProcess } from 'node:child_process'
import { randomInt } from 'node:crypto'
import { once } from 'node:events'
import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { systemClock } from '#core/clock.ts'
import { newMachineId } from '#core/ids.ts'
import type { Machine } from '#spec/machine.ts'
import type { RuntimeKind } from '#spec/runtime.ts'
import type { HostSettings } from '#spec/settings.ts'
import { readTextFile } from '#sys/files.ts'
import { callJson } from '#sys/http-client.ts'
import { run } from '#sys/process.ts'
import { busyboxTree } from '../../test/images/busybox.ts'
import { createPusher, layer } from '../../test/images/push.ts'
import { startImageRegistry, type ImageRegistry } from '../../test/images/registry.ts'

const key = 'cluster-key-of-a-test'
const program = join(import.meta.dirname, '../../bin/hangar.ts')
/** A VM that a program plays takes seconds of a processor; thirty are tried by hand. */
const many: Record<RuntimeKind, number> = {
  container: 30,
  qemu: Number(process.env['HANGAR_TEST_VMS'] ?? 8),
}
const patienceMs = 280_000

for (const runtime of ['container', 'qemu'] as const) {
  /** A real host process, killed in the middle of many starts. */
  describe(`${many[runtime]} machines at once, ${runtime}`, { concurrency: 1 }, () => {
    const hostId = `many-${process.pid}-${runtime}`
    const dir = mkdtempSync(join(tmpdir(), 'hangar-many-'))
    const target = `unix:${dir}/host.sock`
    const ids = Array.from({ length: many[runtime] }, () => newMachineId())
    let registry: ImageRegistry
    let child: ChildProcess
    let words = ''

    const call = <T = Machine>(method: string, path: string, body?: unknown): Promise<T> =>
      callJson(target, {
        method,
        path,
        headers: { authorization: `Bearer ${key}` },
        timeoutMs: 60_000,
        ...(body === undefined ? {} : { body }),
      })
    async function startHost(): Promise<void> {
      child = spawn(process.execPath, [program, 'host', '--settings', join(dir, 'settings.json')], {
        stdio: ['ignore', 'inherit', 'pipe'],
        env: { ...process.env, HANGAR_LOG: 'warn' },
      })
      child.stderr?.on('data', (chunk: Buffer) => (words += chunk.toString()))
      await until(async () => {
        assert.equal(child.exitCode, null, `the host did not start:\n${words}`)
        return (await call('GET', '/v1/host').catch(() => undefined)) !== undefined
      })
    }
    async function until(met: () => Promise<boolean>): Promise<void> {
      const deadline = systemClock.now() + patienceMs
      while (!(await met())) {
        assert.ok(systemClock.now() < deadline, `it never became true:\n${words}`)
        await systemClock.sleep(100)
      }
    }
    const machines = () => Promise.all(ids.map((id) => call('GET', `/v1/machines/${id}`)))
    const inState = async (state: string) =>
      (await machines()).filter((machine) => machine.state === state).length
    /** The machines that have a process, by their control groups: one entry for each process that keeps one up. */
    const kept = () =>
      readdirSync('/proc').flatMap((pid) => {
        const groups = /^\d+$/.test(pid) ? (readTextFile(`/proc/${pid}/cgroup`) ?? '') : ''
        const id = new RegExp(`/hangar-${hostId}(?:-vm)?/([a-z0-9]+)\n`).exec(groups)?.[1]
        const command = id ? (readTextFile(`/proc/${pid}/cmdline`) ?? '') : ''
        return id && /^(\/\.fly\/init|qemu-system)/.test(command) ? [{ id, pid: Number(pid) }] : []
      })
    const keepers = () => kept().map(({ id }) => id)
    const pidsOf = (id: string) => kept().flatMap((one) => (one.id === id ? [one.pid] : []))

    before(async () => {
      registry = await startImageRegistry({ dir: join(dir, 'registry') })
      const layers = [layer(busyboxTree('NAME=test\n'))]
      const config = { Env: ['PATH=/bin'], Cmd: ['sleep', '1000'] }
      await createPusher(registry.url).image('busybox', 'latest', { layers, config })
      writeFileSync(join(dir, 'cluster.key'), key)
      const settings: HostSettings = {
        id: hostId,
        number: randomInt(1, 1 << 30),
        region: 'ord',
        dir: join(dir, 'host'),
        listen: target,
        nats_url: 'nats://127.0.0.1:9', // Nobody is there: a bus that is down stops no host.
        cluster_key_file: join(dir, 'cluster.key'),
        runtime,
        kernel_dir: resolve(import.meta.dirname, '../../build/kernel'),
        mirrors: {},
        registries: [{ host: registry.host, username: '', password: '', insecure: true }],
        cpu_overcommit: 64,
        ipv4_block: `10.${randomInt(1, 32)}.0.0/16`,
      }
      writeFileSync(join(dir, 'settings.json'), JSON.stringify(settings))
      await startHost()
    })
    after(async () => {
      if (child.exitCode !== null || child.signalCode !== null) await startHost()
      await call('POST', '/v1/down')
      child.kill('SIGTERM')
      await once(child, 'exit')
      await registry.close()
      rmSync(dir, { recursive: true, force: true })
    })

    test('all of them start, also when the host is killed in the middle', async (t) => {
      const begun = performance.now()
      const config = {
        image: `${registry.host}/busybox`,
        guest: { cpu_kind: 'shared', cpus: 1, memory_mb: 256 },
      }
      const app = { id: 'app_1', name: 'web', org: 'personal', network: 78 }
      const create = (id: string) =>
        call('POST', '/v1/machines', { id, app, owner: 'tester', input: { config } })
      await Promise.all(ids.map(create))
      await until(async () => (await inState('started')) >= ids.length / 4)
      const ended = once(child, 'exit')
      child.kill('SIGKILL')
      await ended
      await startHost()
      await until(async () => (await inState('started')) === ids.length)
      t.diagnostic(`all started after ${Math.round(performance.now() - begun)} ms`)
      assert.deepEqual(keepers().toSorted(), ids.toSorted(), 'one process for each')
      for (const { id, events } of await machines()) {
        const wrong = events.filter(({ status, type }) => status === 'failed' || type === 'exit')
        assert.deepEqual(wrong, [], id)
      }
    })

    test('a process that is killed from outside is an exit like any other, and its policy starts it again', async () => {
      const [id = ''] = ids
      const before = keepers()
      for (const pid of pidsOf(id)) process.kill(pid, 'SIGKILL')
      const exited = async () => {
        const { events, state } = await call('GET', `/v1/machines/${id}`)
        return state === 'started' && events.some(({ type }) => type === 'exit')
      }
      await until(exited)
      const { events } = await call('GET', `/v1/machines/${id}`)
      const exits = events.filter(({ type }) => type === 'exit')
      assert.equal(exits.length, 1)
      assert.match(JSON.stringify(exits[0]?.request), /"exit_code":137/)
      assert.deepEqual(keepers().toSorted(), before.toSorted())
    })

    test('all destroyed at once, nothing of them is left', async () => {
      await Promise.all(ids.map((id) => call('DELETE', `/v1/machines/${id}?kill=true`)))
      await until(async () => (await inState('destroyed')) === ids.length)
      assert.deepEqual(keepers(), [])
      for (const folder of ['runtime/machines', 'vms/machines', 'vms/exits']) {
        const at = join(dir, 'host', folder)
        assert.deepEqual(existsSync(at) ? readdirSync(at) : [], [], folder)
      }
      const left = (await run('ip', ['netns', 'list'])).stdout.split('\n')
      assert.deepEqual(
        left.filter((name) => name.startsWith(`hgr-${hostId}-`)),
        [],
      )
      const aliases = (await run('ip', ['-d', 'link', 'show', 'type', 'veth'])).stdout
      assert.ok(!ids.some((id) => aliases.includes(`alias ${id} `)))
      const groups = (await run('find', ['/sys/fs/cgroup', '-path', `*hangar-${hostId}*`])).stdout
      assert.ok(!ids.some((id) => groups.includes(id)), groups)
    })
  })
}
