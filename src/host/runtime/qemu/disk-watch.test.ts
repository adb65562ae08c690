import assert from 'node:assert/strict'
import { existsSync, mkdirSync, rmSync, statfsSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { systemClock } from '#core/clock.ts'
import { isFault } from '#core/fault.ts'
import { createLogger } from '#sys/log.ts'
import { run, runOk } from '#sys/process.ts'
import { eventually } from '#sys/test-support.ts'
import type { Driver } from '../driver.ts'
import { openWorkshop, type Workshop } from '../test-support.ts'
import type { MachineNews } from './disk-watch.ts'
import { openQemuDriver } from './qemu-driver.ts'
import { kernelCacheDir } from './test-support.ts'

async function cleanUp(driver: Driver, dir: string, shop: Workshop): Promise<void> {
  for (const id of await driver.list()) await driver.destroy(id)
  await driver.releaseUnused()
  driver.close()
  await run('umount', ['--lazy', dir])
  await shop.close()
}

test('a VM on a host whose disk is full stands still, which is said once, and goes on when there is room', async (t) => {
  const shop = await openWorkshop()
  const dir = join(shop.dir, 'small')
  mkdirSync(dir)
  await runOk('mount', ['-t', 'tmpfs', '-o', 'size=96m', 'none', dir])
  const heard: MachineNews[] = []
  const driver = openQemuDriver({
    dir,
    hostId: `full-${process.pid}`,
    kernelCacheDir,
    onNews: (_, news) => void heard.push(news),
    log: createLogger('test'),
  })
  t.after(() => cleanUp(driver, dir, shop))
  const script = `while read -r word; do dd if=/dev/zero of=/$word bs=1M count=16 2>/dev/null
    sync; echo wrote $word; done < /root/words; sleep 600`
  const words = { path: '/root/words', content: Buffer.from('first\nsecond\n'), mode: 0o644 }
  const wait = 'trap begin=1 USR1; echo ready; while [ -z "$begin" ]; do sleep 0.1; done'
  const spec = shop.spec(['sh', '-c', `${wait}; ${script}`], { rootSizeMb: 256, files: [words] })
  await driver.start(spec)
  await eventually('it waits', () => shop.output(spec) === 'ready')
  const filler = join(dir, 'filler')
  const { bavail, bsize } = statfsSync(dir)
  writeFileSync(filler, Buffer.alloc(bavail * bsize - 2 ** 20, 1))
  await driver.signal(spec.id, 'SIGUSR1')
  await eventually('it is said', () => heard.length > 0)
  assert.match(heard[0]?.message ?? '', /host's disk is full: the machine stands still/)
  // Longer than a silent guest is waited for otherwise: what is under way with it waits as well.
  const argv = ['echo', 'patient']
  const asked = driver.exec(spec.id, { argv, timeoutMs: 60_000, outputBytesMax: 100 })
  await systemClock.sleep(11_000)
  assert.equal(heard.length, 1)
  assert.equal(await driver.recover(spec.id), 'running')
  assert.equal(shop.output(spec), 'ready')
  rmSync(filler)
  await eventually('it goes on', () => shop.output(spec) === 'ready\nwrote first\nwrote second')
  assert.equal((await asked).stdout, 'patient\n')
  await eventually('that is said', () => heard.length > 1)
  assert.deepEqual(heard[1], { level: 'info', message: 'There is room: it goes on' })
})

test('a start on a host whose disk is full says so, before its disk is made or while it boots', async (t) => {
  const shop = await openWorkshop()
  const dir = join(shop.dir, 'small')
  mkdirSync(dir)
  await runOk('mount', ['-t', 'tmpfs', '-o', 'size=64m', 'none', dir])
  const hostId = `none-${process.pid}`
  const driver = openQemuDriver({ dir, hostId, kernelCacheDir, log: createLogger('test') })
  t.after(() => cleanUp(driver, dir, shop))
  // A swap file is written out at once, and its guest does not go on before.
  const limits = { cpus: 1, cpuKind: 'shared', memoryMb: 128, swapMb: 64 } as const
  const spec = shop.spec(['sleep', '600'], { rootSizeMb: 256, limits })
  const filler = join(dir, 'filler')
  const fillBut = (bytes: number) => {
    rmSync(filler, { force: true })
    const { bavail, bsize } = statfsSync(dir)
    writeFileSync(filler, Buffer.alloc(bavail * bsize - bytes, 1))
  }
  const isTold = (error: unknown) =>
    isFault(error, 'insufficient_capacity') &&
    error.message.startsWith("the host's disk is full; remove machines, volumes or snapshots")
  // What boots here is tried on this disk, too, where nobody has tried it yet.
  assert.ok((await driver.probe()).ok)
  fillBut(0)
  await assert.rejects(driver.start(spec), isTold)
  fillBut(40 * 1024)
  await assert.rejects(driver.start(spec), isTold)
  rmSync(filler)
  const starting = driver.start(spec)
  const began = performance.now()
  await eventually('it boots', () => existsSync(join(dir, 'machines', spec.id, 'run/qmp.sock')))
  fillBut(0)
  await assert.rejects(starting, isTold)
  assert.ok(performance.now() - began < 60_000, 'it was waited for as one that is slow')
  assert.equal(await driver.recover(spec.id), undefined)
})

test('any other trouble of the disk is told to the guest, which does not stand still', async (t) => {
  const shop = await openWorkshop()
  const [image, dir] = [join(shop.dir, 'ext4.img'), join(shop.dir, 'ext4')]
  mkdirSync(dir)
  await runOk('truncate', ['-s', '200M', image])
  await runOk('mkfs.ext4', ['-q', '-F', image])
  await runOk('mount', ['-o', 'loop,errors=remount-ro', image, dir])
  const { source } = await shop.volume('disk')
  const volume = join(dir, 'volume')
  await runOk('cp', ['--sparse=always', source, volume])
  const heard: MachineNews[] = []
  const driver = openQemuDriver({
    dir: join(shop.dir, 'driver'),
    hostId: `broken-${process.pid}`,
    kernelCacheDir,
    onNews: (_, news) => void heard.push(news),
    log: createLogger('test'),
  })
  t.after(() => cleanUp(driver, dir, shop))
  const spec = shop.spec(['sleep', '600'], { mounts: [{ source: volume, path: '/data' }] })
  await driver.start(spec)
  const device = (await runOk('findmnt', ['-no', 'SOURCE', dir])).trim().slice('/dev/'.length)
  writeFileSync(`/sys/fs/ext4/${device}/trigger_fs_error`, 'as of a broken disk')
  const exec = async (script: string) => {
    const argv = ['sh', '-c', script]
    return (await driver.exec(spec.id, { argv, timeoutMs: 60_000, outputBytesMax: 1_000 })).stdout
  }
  assert.match(await exec('dd if=/dev/zero of=/data/file bs=1M count=1 conv=fsync 2>&1'), /rror/)
  assert.equal(await exec('echo still here'), 'still here\n')
  assert.deepEqual(heard, [])
})
