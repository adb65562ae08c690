import assert from 'node:assert/strict'
import { copyFileSync, existsSync, readFileSync, renameSync } from 'node:fs'
import { after, describe, test } from 'node:test'
import { processStartTime, runOk } from '#sys/process.ts'
import { eventually } from '#sys/test-support.ts'
import { findCgroups, processesOf } from '#sys/cgroup.ts'
import type { StartSpec } from '../driver.ts'
import { bootIdOf, openVmShop } from './test-support.ts'
import { readVmRecord } from './vm-folder.ts'

const { shop, hostId, open, folderOf, spawnHost, close } = await openVmShop('ready')

describe('what waits for the resume of a VM', { concurrency: 1 }, () => {
  let driver = open({ readyMax: 1 })
  after(() => close(driver))
  const started = async (given: Partial<StartSpec> = {}) => {
    const spec = shop.spec(['sleep', '600'], given)
    await driver.start(spec)
    return spec
  }
  const bootId = (id: string) => bootIdOf(driver, id)
  const vmmOf = (id: string) => readVmRecord(folderOf(id))?.vmm?.pid
  const processes = (id: string) => processesOf(findCgroups(), `/hangar-${hostId}-vm/${id}`)
  const until = (check: () => boolean) => eventually('it came true', check)
  /** The launcher of a suspended machine, once its root is made. */
  const waiting = async (id: string): Promise<number> => {
    const isMade = (pid: number) => pid !== vmmOf(id) && !existsSync(`/proc/${pid}/root/sys`)
    await until(() => processes(id).length === 1 && processes(id).every(isMade))
    return processes(id)[0] ?? 0
  }

  test('a resume lets go what was made behind the suspend', async () => {
    const { id } = await started()
    const before = await bootId(id)
    for (let i = 0; i < 2; i++) {
      await driver.suspend(id)
      const pid = await waiting(id)
      assert.doesNotMatch(readFileSync(`/proc/${pid}/comm`, 'utf8'), /qemu/)
      await driver.resume(id)
      assert.equal(vmmOf(id), pid)
      assert.equal(await bootId(id), before)
    }
    await driver.suspend(id)
    const pid = await waiting(id)
    await driver.destroy(id)
    assert.equal(processStartTime(pid), undefined)
  })

  test('none is left for a host that goes down, also one that is still being made', async () => {
    const { id } = await started()
    const before = await bootId(id)
    for (const wait of [waiting, async () => {}]) {
      await driver.suspend(id)
      await wait(id)
      await driver.releaseUnused()
      assert.deepEqual(processes(id), [])
      await driver.resume(id)
      assert.equal(await bootId(id), before)
    }
    await driver.destroy(id)
  })

  test('of a disk or a link that was made anew meanwhile nothing old is used', async () => {
    const name = shop.netnsPath.split('/').at(-1) ?? ''
    const far = `hgr${process.pid}`.slice(0, 15)
    const ip = (words: string) => runOk('ip', words.split(' '))
    await ip(`link add ${far} type veth peer name eth0 netns ${name}`)
    try {
      await ip(`-n ${name} address add 198.18.76.2/32 dev eth0`)
      await ip(`-n ${name} link set eth0 up`)
      const { source } = await shop.volume('disk')
      const { id } = await started({ mounts: [{ source, path: '/data' }] })
      const before = await bootId(id)
      const spoils = [
        async () => {
          copyFileSync(source, `${source}.new`)
          renameSync(`${source}.new`, source)
        },
        () => ip(`-n ${name} link delete tap0`),
      ]
      for (const spoil of spoils) {
        await driver.suspend(id)
        const pid = await waiting(id)
        await spoil()
        await driver.resume(id)
        assert.notEqual(vmmOf(id), pid)
        assert.equal(processStartTime(pid), undefined)
        assert.equal(await bootId(id), before)
        assert.match(await ip(`-n ${name} link show tap0`), /alias/)
      }
      await driver.destroy(id)
    } finally {
      await ip(`link delete ${far}`)
    }
  })

  test('only those wait that were suspended last, and none when the driver is closed', async () => {
    const first = await started()
    const second = await started()
    await driver.suspend(first.id)
    const pid = await waiting(first.id)
    await driver.suspend(second.id)
    await until(() => processStartTime(pid) === undefined)
    const other = await waiting(second.id)
    await driver.resume(first.id)
    driver.close()
    await until(() => processStartTime(other) === undefined)
    driver = open({ readyMax: 1 })
    assert.equal(await driver.recover(second.id), 'running')
    await driver.resume(second.id)
    for (const { id } of [first, second]) await driver.destroy(id)
  })

  test('none outlives a host that is killed, and the machine goes on without', async () => {
    const spec = shop.spec(['sleep', '600'])
    const host = spawnHost(
      spec,
      `await driver.start(spec)
      await driver.suspend(spec.id)
      setInterval(() => {}, 1_000)`,
    )
    const { manifestFile } = folderOf(spec.id)
    await until(() => existsSync(manifestFile) && vmmOf(spec.id) !== undefined)
    const pid = await waiting(spec.id)
    host.kill('SIGKILL')
    await until(() => processStartTime(pid) === undefined)
    assert.equal(await driver.recover(spec.id), 'running')
    await driver.resume(spec.id)
    await bootId(spec.id)
    await driver.destroy(spec.id)
  })
})
