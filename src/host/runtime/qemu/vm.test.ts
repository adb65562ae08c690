import assert from 'node:assert/strict'
import { once } from 'node:events'
import {
  existsSync,
  mkdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { join, resolve } from 'node:path'
import { after, describe, test } from 'node:test'
import { systemClock } from '#core/clock.ts'
import { isFault } from '#core/fault.ts'
import { isAlive, run, signalProcess } from '#sys/process.ts'
import { findCgroups } from '#sys/cgroup.ts'
import { eventually } from '#sys/test-support.ts'
import type { StartSpec } from '../driver.ts'
import { probeVm } from './qemu-probe.ts'
import { kernelCacheDir, openVmShop } from './test-support.ts'
import { readVmRecord, type VmRecord } from './vm-folder.ts'
import { VmPlace } from './vm-place.ts'
import { VmSessions } from './vm-sessions.ts'
import { guestRun, startVm } from './vm-start.ts'

const { shop, dir, hostId, log, open, folderOf, spawnHost, close } = await openVmShop('vm')

describe('qemu driver', { concurrency: 1 }, () => {
  let driver = open()
  after(() => close(driver))
  const started = async (script: string, given: Partial<StartSpec> = {}) => {
    const spec = shop.spec(['sh', '-c', script], given)
    await driver.start(spec)
    return spec
  }
  const exec = async (spec: StartSpec, script: string) => {
    const argv = ['sh', '-c', script]
    const result = await driver.exec(spec.id, { argv, timeoutMs: 60_000, outputBytesMax: 10_000 })
    return result.stdout
  }
  const vmmOf = (id: string) => {
    const { vmm } = readVmRecord(folderOf(id)) ?? {}
    assert.ok(vmm)
    return vmm
  }
  const until = (check: () => boolean) => eventually('it came true', check, 120_000)
  /** Nothing runs, and no cgroup is there. */
  const assertNothingOf = (record: VmRecord | undefined, id: string) => {
    assert.ok(!record?.vmm || !isAlive(record.vmm))
    const { mount } = findCgroups()
    for (const controller of ['', 'memory', 'pids', 'cpu']) {
      assert.ok(!existsSync(join(mount, controller, `hangar-${hostId}-vm`, id)))
    }
  }

  test('a guest has a kernel of its own, a user of its own and a sandbox', async () => {
    const spec = await started('uname -r; sleep 600')
    const here = (await run('uname', ['-r'])).stdout.trim()
    await until(() => shop.output(spec) !== '')
    assert.notEqual(shop.output(spec), here)
    const status = readFileSync(`/proc/${vmmOf(spec.id).pid}/status`, 'utf8')
    const field = (name: string) => new RegExp(`^${name}:\\t(.*)$`, 'm').exec(status)?.[1]
    assert.ok(Number(field('Uid')?.split('\t')[1]) > 1_000_000)
    assert.equal(field('Groups')?.trim(), '')
    assert.equal(field('Seccomp'), '2')
    assert.equal(field('NoNewPrivs'), '1')
    assert.equal(field('CapEff'), '0000000000000000')
    assert.equal(field('CapBnd'), '0000000000000000')
    // No mount of the host's is kept in use by it: only what QEMU itself needs.
    const mounts = readFileSync(`/proc/${vmmOf(spec.id).pid}/mountinfo`, 'utf8')
      .trim()
      .split('\n')
    const points = mounts.map((line) => line.split(' ')[4] ?? '')
    const own = /^\/(usr|bin|sbin|lib|lib32|lib64|etc|opt|proc|run)?$/
    assert.deepEqual(
      points.filter((point) => !own.test(point)),
      [],
    )
    // A monitor that is killed is an end, and says so.
    const end = driver.exited(spec.id)
    signalProcess(vmmOf(spec.id), 'SIGKILL')
    assert.equal((await end).exitCode, 137)
    assert.match((await end).error ?? '', /monitor of the machine ended/)
    await driver.destroy(spec.id)
  })

  test('a RUN that fails leaves no volume mounted, and the next one has it', async () => {
    const { found: makers, note } = await probeVm({ dir, hostId, kernelCacheDir })
    assert.ok(makers, note)
    const { source } = await shop.volume('disk')
    const argv = ['sh', '-c', 'echo kept > /data/log; cat /data/log; grep -c /data /proc/mounts']
    const spec = shop.spec(argv, { mounts: [{ source, path: '/data' }] })
    const place = new VmPlace({ dir, hostId })
    const sessions = new VmSessions(place, { log, onOver: () => {} })
    const onGone = () => {}
    const netReady = Promise.resolve()
    const inTurn = <T>(work: () => Promise<T>) => work()
    try {
      const wrong = { ...spec, argv: ['no-such-program'] }
      await assert.rejects(
        startVm({ place, sessions, spec: wrong, makers, netReady, inTurn, onGone }),
        /was not found in the image/,
      )
      const { guest } = (await sessions.open(spec.id)) ?? {}
      assert.ok(guest)
      await guest.run(guestRun(spec, undefined), 60_000)
      assert.equal((await guest.exited).exitCode, 0)
      assert.equal(shop.output(spec), 'kept\n1')
      const { stdout } = await run('dumpe2fs', ['-h', source])
      assert.match(stdout, /Filesystem features:/)
      assert.ok(!stdout.includes('needs_recovery'), 'it was unmounted, and is nowhere else mounted')
    } finally {
      await sessions.close(spec.id)
      await driver.destroy(spec.id)
    }
  })

  test("a guest's clock runs as fast as the host's", async () => {
    const spec = await started('sleep 600')
    /** Its uptime, and between which moments of ours it was read. */
    const look = async () => {
      const from = performance.now()
      const guest = 1000 * Number((await exec(spec, 'cat /proc/uptime')).split(' ')[0])
      return { guest, from, to: performance.now() }
    }
    await exec(spec, 'true') // The first one takes its time.
    const before = await look()
    await systemClock.sleep(4_000)
    const after = await look()
    const passed = after.guest - before.guest
    const [least, most] = [after.from - before.to, after.to - before.from]
    assert.ok(passed > least - 400 && passed < most + 400, JSON.stringify({ passed, least, most }))
    await driver.destroy(spec.id)
  })

  test('a kernel that panics is an end with its words', async () => {
    const spec = await started('sleep 600')
    await exec(spec, 'echo c > /proc/sysrq-trigger').catch(() => {})
    const end = await driver.exited(spec.id)
    assert.match(end.error ?? '', /gave up: Kernel panic/)
    await driver.destroy(spec.id)
  })

  test('a guest that never answers fails its start, and nothing is left', async () => {
    const impatient = open({ bootTimeoutMs: 2_000 })
    await impatient.probe()
    const spec = shop.spec(['true'])
    const failed = assert.rejects(impatient.start(spec), (error) => {
      assert.ok(isFault(error, 'native_failed'))
      return /did not come up.*has not answered/s.test(error.message)
    })
    await until(() => readVmRecord(folderOf(spec.id))?.vmm !== undefined)
    const record = readVmRecord(folderOf(spec.id))
    signalProcess(vmmOf(spec.id), 'SIGSTOP')
    await failed
    assertNothingOf(record, spec.id)
    assert.ok(!(await driver.list()).includes(spec.id))
  })

  test('a full disk is the machine’s own trouble, and a flood of output drowns nobody', async () => {
    const script =
      'dd if=/dev/zero of=/big bs=1M count=200 2>/dev/null; echo full $?; while :; do echo 0123456789012345678901234567890; done'
    const spec = await started(script, { rootSizeMb: 64 })
    await until(() => shop.output(spec).startsWith('full 1'))
    assert.ok(statSync(folderOf(spec.id).upper).blocks * 512 <= 66 * 1024 * 1024)
    assert.equal(await exec(spec, 'echo still here'), 'still here\n')
    assert.ok(((await driver.stats(spec.id))?.processes ?? 0) > 1)
    await driver.destroy(spec.id)
  })

  test('a snapshot that is cut short or of others is refused, and the root is kept', async () => {
    const script = 'echo kept >> /root/log; cat /root/log; sleep 600'
    const spec = await started(script)
    const again = async (output: string, spoil: () => void) => {
      await until(() => shop.output(spec) === output)
      await exec(spec, 'sync')
      await driver.suspend(spec.id)
      assert.equal(await driver.recover(spec.id), 'running')
      spoil()
    }
    const { memoryFile, manifestFile } = folderOf(spec.id)
    await again('kept', () => truncateSync(memoryFile, statSync(memoryFile).size - 1))
    assert.equal(await driver.recover(spec.id), undefined)
    await driver.start({ ...spec, keepRoot: true })
    await again('kept\nkept\nkept', () => {
      const text = readFileSync(manifestFile, 'utf8')
      writeFileSync(manifestFile, text.replace('version', 'another'))
    })
    await assert.rejects(driver.resume(spec.id), /it was made by/)
    assert.equal(await driver.recover(spec.id), undefined)
    await driver.destroy(spec.id)
    assertNothingOf(readVmRecord(folderOf(spec.id)), spec.id)
  })

  test('a PID 1 that was built anew costs no machine its memory', async () => {
    const cache = join(shop.dir, 'kernels')
    mkdirSync(cache)
    symlinkSync(join(kernelCacheDir, 'kernel'), join(cache, 'kernel'))
    const initPath = join(shop.dir, 'init')
    const init = readFileSync(resolve(kernelCacheDir, '../guest/init'))
    writeFileSync(initPath, Buffer.concat([init, Buffer.from('newer')]), { mode: 0o755 })
    const spec = await started('sleep 600')
    const before = await exec(spec, 'cat /proc/sys/kernel/random/boot_id')
    await driver.suspend(spec.id)
    const { initramfsPath = '' } = readVmRecord(folderOf(spec.id)) ?? {}
    assert.ok(existsSync(initramfsPath))
    driver.close()
    driver = open({ kernelCacheDir: cache, initPath })
    assert.equal(await driver.recover(spec.id), 'running')
    await driver.resume(spec.id)
    assert.equal(await exec(spec, 'cat /proc/sys/kernel/random/boot_id'), before)
    assert.ok(!existsSync(initramfsPath), 'nobody needs the old one')
    await driver.destroy(spec.id)
    driver.close()
    driver = open()
  })

  test('many starts at once take turns, none is lost, and one that is not ready to boot takes none', async () => {
    const few = open({ startsAtOnceMax: 2 })
    const net = Promise.withResolvers<void>()
    const slow = [shop.spec(['sleep', '600']), shop.spec(['sleep', '600'])]
    const waiting = slow.map((spec) => assert.rejects(few.start(spec, net.promise), /no network/))
    const specs = Array.from({ length: 4 }, () => shop.spec(['sleep', '600']))
    const all = Promise.all(specs.map((spec) => few.start(spec)))
    let most = 0
    while (!(await Promise.race([all.then(() => true), systemClock.sleep(10)]))) {
      const records = specs.map(({ id }) => readVmRecord(folderOf(id)))
      most = Math.max(most, records.filter((record) => record?.vmm && !record.started).length)
    }
    assert.equal(most, 2)
    net.reject(new Error('no network'))
    await Promise.all(waiting)
    for (const { id } of specs) {
      assert.equal(await few.recover(id), 'running')
      await few.destroy(id)
    }
  })

  test('a host killed in a start or a suspend leaves a machine or nothing, never a half', async () => {
    const steps = `
      console.log('begin')
      await driver.start(spec)
      console.log('started')
      await driver.suspend(spec.id)
      console.log('suspended')
      await driver.resume(spec.id)
      console.log('resumed')
    `
    const moments: [string, number][] = [
      ['begin', 150],
      ['begin', 1_000],
      ['started', 30],
      ['started', 200],
      ['suspended', 150],
    ]
    for (const [word, laterMs] of moments) {
      const loop = 'trap "exit 7" USR1; echo ready; while :; do sleep 0.1; done'
      const spec = shop.spec(['sh', '-c', loop])
      const host = spawnHost(spec, steps)
      let said = ''
      host.stdout.on('data', (chunk: Buffer) => (said += chunk.toString()))
      await until(() => said.includes(word))
      await systemClock.sleep(laterMs)
      const killed = once(host, 'exit')
      host.kill('SIGKILL')
      await killed
      const next = open()
      const record = readVmRecord(folderOf(spec.id))
      const found = await next.recover(spec.id)
      const when = `${laterMs} ms after ${word}`
      if (word === 'begin') assert.equal(found, undefined, when)
      else {
        assert.equal(found, 'running', when)
        await next.resume(spec.id)
        await until(() => shop.output(spec) === 'ready')
        assert.equal(await next.signal(spec.id, 'SIGUSR1'), true)
        assert.equal((await next.exited(spec.id)).exitCode, 7, when)
      }
      await next.destroy(spec.id)
      assertNothingOf(record, spec.id)
    }
  })

  test('a guest is where its namespace’s link is, and cannot speak in another’s name', async () => {
    const name = shop.netnsPath.split('/').at(-1) ?? ''
    const ip = (...args: string[]) => run('ip', args)
    const far = `hgt${process.pid}`.slice(0, 15)
    await ip('link', 'add', far, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', name)
    try {
      await ip('address', 'add', '198.18.77.1/32', 'dev', far)
      await ip('link', 'set', far, 'up')
      await ip('route', 'add', '198.18.77.2/32', 'dev', far)
      await ip('-n', name, 'address', 'add', '198.18.77.2/32', 'dev', 'eth0')
      await ip('-n', name, 'link', 'set', 'eth0', 'up')
      await ip('-n', name, 'route', 'add', 'default', 'via', '198.18.77.1', 'dev', 'eth0', 'onlink')
      const spec = await started('echo hello > /tmp/page; httpd -f -p 8080 -h /tmp')
      const page = async () => {
        for (let tries = 0; ; tries++) {
          try {
            const signal = AbortSignal.timeout(5_000)
            return await (await fetch('http://198.18.77.2:8080/page', { signal })).text()
          } catch (error) {
            if (tries > 100) throw error // It listens soon.
            await systemClock.sleep(50)
          }
        }
      }
      assert.equal(await page(), 'hello\n')
      const before = (await driver.spoofed?.(spec.id)) ?? 0
      await exec(
        spec,
        'ip addr add 198.18.77.9/32 dev eth0; ping -c 1 -W 1 -I 198.18.77.9 198.18.77.1',
      )
      assert.ok(((await driver.spoofed?.(spec.id)) ?? 0) > before)
      const tapNow = async () =>
        (await ip('-n', name, '-o', 'link', 'show', 'tap0')).stdout.split(':')[0]
      const tapBefore = await tapNow()
      await driver.suspend(spec.id)
      await driver.resume(spec.id)
      assert.equal(await page(), 'hello\n')
      assert.equal(await tapNow(), tapBefore, 'a resume finds its network as it was')
      await driver.destroy(spec.id)
      // The namespace has its link back: a container that starts there next is reached.
      await assert.rejects(fetch('http://198.18.77.2:8080/'), (error: Error) => {
        return (error.cause as NodeJS.ErrnoException).code === 'ECONNREFUSED'
      })
    } finally {
      await ip('link', 'delete', far)
    }
  })
})
