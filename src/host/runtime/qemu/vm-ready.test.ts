import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { copyFileSync, existsSync, readFileSync, renameSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { createLogger } from '#sys/log.ts'
import { processStartTime, runOk } from '#sys/process.ts'
import { eventually } from '#sys/test-support.ts'
import { findCgroups, processesOf } from '#sys/cgroup.ts'
import type { Driver, StartSpec } from '../driver.ts'
import { openWorkshop, type Workshop } from '../test-support.ts'
import { openQemuDriver, type QemuDriverOptions } from './qemu-driver.ts'
import { readVmRecord, vmFolder, vmFolders } from './vm-folder.ts'

const kernelCacheDir = resolve(import.meta.dirname, '../../../../build/kernel')
const log = createLogger('test')
const hostId = `ready-${process.pid}`

describe('what waits for the resume of a VM', { concurrency: 1 }, () => {
  let shop: Workshop
  let driver: Driver
  let dir: string
  const open = (given: Partial<QemuDriverOptions> = {}) =>
    openQemuDriver({ dir, hostId, kernelCacheDir, log, ...given })
  before(async () => {
    shop = await openWorkshop()
    dir = join(shop.dir, 'driver')
    driver = open({ readyMax: 1 })
  })
  after(async () => {
    for (const id of await driver.list()) await driver.destroy(id)
    driver.close()
    await shop.close()
  })
  const started = async (given: Partial<StartSpec> = {}) => {
    const spec = shop.spec(['sleep', '600'], given)
    await driver.start(spec)
    return spec
  }
  const bootId = async (id: string) => {
    const argv = ['cat', '/proc/sys/kernel/random/boot_id']
    return (await driver.exec(id, { argv, timeoutMs: 60_000, outputBytesMax: 1_000 })).stdout
  }
  const vmmOf = (id: string) => readVmRecord(vmFolder(vmFolders(dir), id))?.vmm?.pid
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
    const script = `
      import { openQemuDriver } from ${JSON.stringify(join(import.meta.dirname, 'qemu-driver.ts'))}
      const { options, spec } = JSON.parse(process.argv[1])
      const log = { debug() {}, info() {}, warn() {}, error() {} }
      const driver = openQemuDriver({ ...options, log })
      await driver.start(spec)
      await driver.suspend(spec.id)
      setInterval(() => {}, 1_000)
    `
    const spec = shop.spec(['sleep', '600'])
    const given = JSON.stringify({ options: { dir, hostId, kernelCacheDir }, spec })
    const host = spawn(process.execPath, ['--input-type=module', '-e', script, given], {
      stdio: 'inherit',
    })
    const { manifestFile } = vmFolder(vmFolders(dir), spec.id)
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
