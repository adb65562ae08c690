import assert from 'node:assert/strict'
import { existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { newMachineId } from '#core/ids.ts'
import type { RuntimeKind } from '#spec/runtime.ts'
import { readTextFile } from '#sys/files.ts'
import { run } from '#sys/process.ts'
import { eventually } from '#sys/test-support.ts'
import { openHostProcess, type HostProcess } from '../../test/support/host-process.ts'

/** A VM that a program plays takes seconds of a processor; thirty are tried by hand. */
const many: Record<RuntimeKind, number> = {
  container: 30,
  qemu: Number(process.env['HANGAR_TEST_VMS'] ?? 8),
}
const patienceMs = 280_000

for (const runtime of ['container', 'qemu'] as const) {
  /** A real host process, killed in the middle of many starts. */
  describe(`${many[runtime]} machines at once, ${runtime}`, { concurrency: 1 }, () => {
    const ids = Array.from({ length: many[runtime] }, () => newMachineId())
    let host: HostProcess
    const call: HostProcess['call'] = (...args) => host.call(...args)
    const until = (what: string, met: () => Promise<boolean>) => eventually(what, met, patienceMs)
    const machines = () => Promise.all(ids.map((id) => call('GET', `/v1/machines/${id}`)))
    const inState = async (state: string) =>
      (await machines()).filter((machine) => machine.state === state).length
    /** The machines that have a process, by their control groups: one entry for each process that keeps one up. */
    const kept = () =>
      readdirSync('/proc').flatMap((pid) => {
        const groups = /^\d+$/.test(pid) ? (readTextFile(`/proc/${pid}/cgroup`) ?? '') : ''
        const id = new RegExp(`/hangar-${host.id}(?:-vm)?/([a-z0-9]+)\n`).exec(groups)?.[1]
        const command = id ? (readTextFile(`/proc/${pid}/cmdline`) ?? '') : ''
        return id && /^(\/\.fly\/init|qemu-system)/.test(command) ? [{ id, pid: Number(pid) }] : []
      })
    const keepers = () => kept().map(({ id }) => id)
    const pidsOf = (id: string) => kept().flatMap((one) => (one.id === id ? [one.pid] : []))

    before(async () => {
      const config = { Env: ['PATH=/bin'], Cmd: ['sleep', '1000'] }
      host = await openHostProcess({ name: 'many', runtime, config, overcommit: 64 })
    })
    after(() => host.close())

    test('all of them start, also when the host is killed in the middle', async (t) => {
      const begun = performance.now()
      const config = {
        image: host.image,
        guest: { cpu_kind: 'shared', cpus: 1, memory_mb: 256 },
      }
      const app = { id: 'app_1', name: 'web', org: 'personal', network: 78 }
      const create = (id: string) =>
        call('POST', '/v1/machines', { id, app, owner: 'tester', input: { config } })
      await Promise.all(ids.map(create))
      await until('some have started', async () => (await inState('started')) >= ids.length / 4)
      await host.end('SIGKILL')
      await host.start()
      await until('all have started', async () => (await inState('started')) === ids.length)
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
      await until('it is back', exited)
      const { events } = await call('GET', `/v1/machines/${id}`)
      const exits = events.filter(({ type }) => type === 'exit')
      assert.equal(exits.length, 1)
      assert.match(JSON.stringify(exits[0]?.request), /"exit_code":137/)
      assert.deepEqual(keepers().toSorted(), before.toSorted())
    })

    test('all destroyed at once, nothing of them is left', async () => {
      await Promise.all(ids.map((id) => call('DELETE', `/v1/machines/${id}?kill=true`)))
      await until('all are gone', async () => (await inState('destroyed')) === ids.length)
      assert.deepEqual(keepers(), [])
      for (const folder of ['runtime/machines', 'vms/machines', 'vms/exits']) {
        const at = join(host.dir, 'host', folder)
        assert.deepEqual(existsSync(at) ? readdirSync(at) : [], [], folder)
      }
      const left = (await run('ip', ['netns', 'list'])).stdout.split('\n')
      assert.deepEqual(
        left.filter((name) => name.startsWith(`hgr-${host.id}-`)),
        [],
      )
      const aliases = (await run('ip', ['-d', 'link', 'show', 'type', 'veth'])).stdout
      assert.ok(!ids.some((id) => aliases.includes(`alias ${id} `)))
      const groups = (await run('find', ['/sys/fs/cgroup', '-path', `*hangar-${host.id}*`])).stdout
      assert.ok(!ids.some((id) => groups.includes(id)), groups)
    })
  })
}
