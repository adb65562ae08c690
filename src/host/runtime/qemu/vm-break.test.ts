import assert from 'node:assert/strict'
import { existsSync, openSync, readFileSync, renameSync, writeFileSync, writeSync } from 'node:fs'
import { after, describe, test } from 'node:test'
import { systemClock } from '#core/clock.ts'
import { isFault, messageOf } from '#core/fault.ts'
import { isAlive, signalProcess } from '#sys/process.ts'
import { eventually } from '#sys/test-support.ts'
import { bootIdOf, openVmShop } from './test-support.ts'
import { readVmRecord } from './vm-folder.ts'

const { shop, open, folderOf, close } = await openVmShop('break')

describe('a VM whose suspend or resume goes wrong', { concurrency: 1 }, () => {
  const driver = open()
  after(() => close(driver))
  const vmmOf = (id: string) => readVmRecord(folderOf(id))?.vmm
  const started = async () => {
    const spec = shop.spec(['sleep', '600'])
    await driver.start(spec)
    return spec
  }
  const bootId = (id: string) => bootIdOf(driver, id)
  const within = async (ms: number, work: () => Promise<unknown>) => {
    const begun = performance.now()
    await work()
    assert.ok(performance.now() - begun < ms, `it took ${performance.now() - begun} ms`)
  }

  test('what is only the host’s trouble costs no snapshot', async () => {
    const { id } = await started()
    const before = await bootId(id)
    await driver.suspend(id)
    await assert.rejects(driver.resume(id, Promise.reject(new Error('no network'))), /no network/)
    assert.equal(await driver.recover(id), 'running')
    // A monitor that is killed while it loads, as for want of the host's memory.
    const old = vmmOf(id)
    const killed = assert.rejects(driver.resume(id))
    await eventually('it loads', () => vmmOf(id)?.pid !== old?.pid)
    const vmm = vmmOf(id)
    assert.ok(vmm)
    signalProcess(vmm, 'SIGKILL')
    await killed
    assert.equal(await driver.recover(id), 'running')
    await driver.resume(id)
    assert.equal(await bootId(id), before)
    await driver.destroy(id)
  })

  test('a snapshot that kills or hangs each monitor is given up after a while, by a count that outlives its host', async () => {
    const { id } = await started()
    await driver.suspend(id)
    const { triesFile, upper } = folderOf(id)
    const tries = () => JSON.parse(readFileSync(triesFile, 'utf8'))
    const dies = async (by: 'SIGKILL' | 'SIGSTOP', words: RegExp) => {
      const old = vmmOf(id)
      const hangs = by === 'SIGSTOP' ? { bootTimeoutMs: 1_000 } : {}
      const next = open(hangs)
      await next.probe()
      const failed = assert.rejects(next.resume(id), words)
      const isLoading = () => {
        const vmm = vmmOf(id)
        if (!vmm || vmm.pid === old?.pid) return false
        return readFileSync(`/proc/${vmm.pid}/comm`, 'utf8').startsWith('qemu')
      }
      await eventually('it loads', isLoading)
      const vmm = vmmOf(id)
      assert.ok(vmm)
      signalProcess(vmm, by)
      await failed
      next.close()
    }
    await dies('SIGKILL', /did not resume/)
    await dies('SIGSTOP', /did not answer|not loaded within|ECONN|ENOENT/)
    await dies('SIGKILL', /did not resume/)
    assert.equal(tries().count, 3)
    assert.equal(await driver.recover(id), 'running', 'a while has not passed')
    await assert.rejects(driver.resume(id, Promise.reject(new Error('no network'))), /no network/)
    assert.equal(tries().count, 3, 'no monitor ran')
    writeFileSync(triesFile, JSON.stringify({ ...tries(), sinceMs: Date.now() - 6 * 60_000 }))
    await dies(
      'SIGKILL',
      /could not be loaded 4 times in 6 minutes, and counts as damaged.*did not/,
    )
    assert.equal(await driver.recover(id), undefined)
    assert.ok(existsSync(upper), 'MCH-42: its root is kept')
    await driver.destroy(id)
  })

  test('without its volume a suspended machine stays so, and says which is missing', async () => {
    const { source } = await shop.volume('disk')
    const spec = shop.spec(['sleep', '600'], { mounts: [{ source, path: '/data' }] })
    await driver.start(spec)
    const before = await bootId(spec.id)
    await driver.suspend(spec.id)
    renameSync(source, `${source}.away`)
    await assert.rejects(driver.resume(spec.id), (error: Error) => {
      return /without its volume at \/data: .* is not there/.test(error.message)
    })
    assert.ok(!existsSync(folderOf(spec.id).triesFile))
    assert.equal(await driver.recover(spec.id), 'running')
    renameSync(`${source}.away`, source)
    await driver.resume(spec.id)
    assert.equal(await bootId(spec.id), before)
    await driver.destroy(spec.id)
  })

  test('memory that QEMU does not understand is a snapshot of no use', async () => {
    const { id } = await started()
    await driver.suspend(id)
    const file = openSync(folderOf(id).memoryFile, 'r+')
    writeSync(file, Buffer.alloc(64, 0x55), 0, 64, 0)
    await assert.rejects(driver.resume(id), /load of migration failed/)
    assert.equal(await driver.recover(id), undefined)
    await driver.destroy(id)
  })

  test('a destruction does not wait behind a suspend that hangs, nor behind a disk that is being copied', async () => {
    const { id } = await started()
    const vmm = vmmOf(id)
    assert.ok(vmm)
    signalProcess(vmm, 'SIGSTOP')
    const suspended = assert.rejects(driver.suspend(id), (error) => {
      assert.ok(isFault(error), messageOf(error))
      // On a busy machine the destruction may come before the suspend has begun.
      assert.match(
        error.message,
        /was not suspended: (.*is being destroyed|the VMM closed)|is not running/,
      )
      return true
    })
    const end = driver.exited(id)
    await systemClock.sleep(200)
    await within(4_500, () => driver.destroy(id))
    await suspended
    assert.ok(!isAlive(vmm))
    assert.equal((await end).error, 'the machine was destroyed')

    const copied = await started()
    const still = driver.still?.(copied.id, () => new Promise(() => {}))
    const broken = assert.rejects(still ?? Promise.resolve())
    await systemClock.sleep(200)
    await within(4_500, () => driver.destroy(copied.id))
    await broken
  })

  test('a suspend that is given up leaves a machine that goes on', async () => {
    const { id } = await started()
    const before = await bootId(id)
    const stop = new AbortController()
    const suspended = driver.suspend(id, stop.signal)
    const refused = assert.rejects(suspended, /was not suspended: a stop came/)
    // In the middle of it: the memory is being written.
    await eventually('it is written', () => existsSync(folderOf(id).unfinished))
    stop.abort(new Error('a stop came'))
    await refused
    assert.equal(await driver.recover(id), 'running')
    assert.equal(await bootId(id), before)
    // Deaf: whoever wants it killed is heard all the same.
    const vmm = vmmOf(id)
    assert.ok(vmm)
    signalProcess(vmm, 'SIGSTOP')
    const again = new AbortController()
    const deaf = assert.rejects(driver.suspend(id, again.signal), /a stop came/)
    await systemClock.sleep(50)
    again.abort(new Error('a stop came'))
    await within(30_000, () => deaf)
    const end = driver.exited(id)
    await within(4_500, () => driver.signal(id, 'SIGKILL'))
    const { exitCode, signal, error } = await end
    assert.deepEqual([exitCode, signal, error], [137, 9, undefined])
    await driver.destroy(id)
  })
})
