import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readFileSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { systemClock } from '#core/clock.ts'
import { createLogger } from '#sys/log.ts'
import { isAlive, signalProcess } from '#sys/process.ts'
import { findCgroups } from '#sys/cgroup.ts'
import { eventually } from '#sys/test-support.ts'
import { openContainerDriver } from './container-driver.ts'
import { driverSuite } from './driver-suite.ts'
import type { Driver, StartSpec } from './driver.ts'
import {
  machineFolder,
  readRecord,
  runtimeFolders,
  writeRecord,
  type MachineRecord,
} from './machine-folder.ts'
import { processesNaming } from './processes.ts'
import { openWorkshop, type Workshop } from './test-support.ts'

const log = createLogger('test')
const hostId = `test-${process.pid}`
const open = (dir: string) => openContainerDriver({ dir, hostId, log })

driverSuite({
  name: 'container',
  open: (dir, { host = '', onApi }) =>
    openContainerDriver({ dir, hostId: hostId + host, log, onApi }),
})

describe('container driver', { concurrency: 1 }, () => {
  let shop: Workshop
  let driver: Driver
  let dir: string
  before(async () => {
    shop = await openWorkshop()
    dir = join(shop.dir, 'driver')
    driver = open(dir)
  })
  after(async () => {
    for (const id of await driver.list()) await driver.destroy(id)
    await shop.close()
  })

  const folderOf = (id: string) => machineFolder(runtimeFolders(dir), id)
  const mounts = () =>
    readFileSync('/proc/self/mountinfo', 'utf8')
      .split('\n')
      .filter((line) => line.includes(shop.dir))
  const cgroupsLeft = () => {
    const { mount } = findCgroups()
    const trees = [mount, ...readdirSync(mount).map((name) => join(mount, name))]
    return trees.filter((at) => existsSync(join(at, `hangar-${hostId}`)))
  }
  const output = async (script: string, given: Partial<StartSpec> = {}) => {
    const spec = shop.spec(['sh', '-c', script], given)
    await driver.start(spec)
    await driver.exited(spec.id)
    return shop.output(spec)
  }

  const pid1Of = (id: string) => {
    const { container } = readRecord(folderOf(id)) ?? {}
    assert.ok(container)
    return container
  }

  test('a killed PID 1 is an end, and nothing goes on without it', async () => {
    const spec = shop.spec(['sh', '-c', 'sleep 63 & sleep 60'])
    await driver.start(spec)
    const container = pid1Of(spec.id)
    const end = driver.exited(spec.id)
    signalProcess(container, 'SIGKILL')
    assert.equal((await end).exitCode, 137)
    assert.equal((await end).oomKilled, false)
    assert.match((await end).error ?? '', /PID 1/)
    assert.deepEqual(await driver.ps(spec.id), [])
    await driver.destroy(spec.id)
    assert.ok(!isAlive(container))
  })

  test('a PID 1 killed while no driver looked is an end too', async () => {
    const spec = shop.spec(['sleep', '60'])
    await driver.start(spec)
    const container = pid1Of(spec.id)
    signalProcess(container, 'SIGKILL')
    await eventually('it is dead', () => !isAlive(container))
    const end = await open(dir).recover(spec.id)
    assert.ok(end && end !== 'running' && end.error)
    await driver.destroy(spec.id)
  })

  test('a record of another boot or another Hangar is an end, whoever has its pids now', async () => {
    const others: Record<string, Partial<MachineRecord>> = {
      'the host was restarted': { bootId: 'another' },
      'another version': { protocol: 99 },
    }
    for (const [words, given] of Object.entries(others)) {
      const spec = shop.spec(['sleep', '60'])
      await driver.start(spec)
      const at = folderOf(spec.id)
      const record = readRecord(at)
      assert.ok(record?.container)
      writeRecord(at, { ...record, ...given })
      const end = await open(dir).recover(spec.id)
      assert.ok(end && end !== 'running')
      assert.ok(end.error?.includes(words), String(end.error))
      await driver.destroy(spec.id)
      assert.ok(!isAlive(record.container))
    }
  })

  test('a PID 1 that hangs cannot keep a machine from being killed', async () => {
    const spec = shop.spec(['sleep', '60'])
    await driver.start(spec)
    const container = pid1Of(spec.id)
    driver.close()
    signalProcess(container, 'SIGSTOP')
    const next = open(dir)
    assert.equal(await next.recover(spec.id), 'running')
    const end = next.exited(spec.id)
    assert.equal(await next.signal(spec.id, 'SIGTERM'), false)
    assert.equal(await next.signal(spec.id, 'SIGKILL'), true)
    assert.equal((await end).exitCode, 137)
    await next.destroy(spec.id)
    assert.ok(!isAlive(container))
  })

  test('machines of one image start and end side by side', async () => {
    const script = 'trap "exit 3" TERM; echo ready; while :; do sleep 0.1; done'
    const specs = Array.from({ length: 6 }, () => shop.spec(['sh', '-c', script]))
    await Promise.all(specs.map((spec) => driver.start(spec)))
    const ends = Promise.all(specs.map((spec) => driver.exited(spec.id)))
    await eventually('all are ready', () => specs.every((spec) => shop.output(spec) === 'ready'))
    await Promise.all(
      specs.map((spec, i) => (i < 3 ? driver.destroy(spec.id) : driver.signal(spec.id, 'SIGTERM'))),
    )
    assert.deepEqual(
      (await ends).map((end) => end.exitCode),
      [137, 137, 137, 3, 3, 3],
    )
  })

  test('the walls of a container stand', async () => {
    const text = await output(`
      grep -E 'NoNewPrivs|CapEff|CapBnd|Seccomp:' /proc/self/status
      mount -t tmpfs x /tmp 2>&1 | head -1
      unshare -n true 2>&1 | head -1
      echo 1 > /proc/sys/kernel/panic 2>&1 || echo read-only
      touch /sys/x 2>/dev/null || echo read-only
      dd if=/dev/kmsg count=1 2>/dev/null || echo no-kmsg
      echo dev: $(ls /dev | grep -v core)
    `)
    assert.match(text, /NoNewPrivs:\s+1/)
    assert.match(text, /CapEff:\s+00000000a80425fb/)
    assert.match(text, /CapBnd:\s+00000000a80425fb/)
    assert.match(text, /Seccomp:\s+2/)
    assert.equal(text.match(/not permitted|permission denied/g)?.length, 2, text)
    assert.equal(text.match(/read-only/g)?.length, 2, text)
    assert.match(text, /no-kmsg/)
    const devices = 'fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero'
    assert.ok(text.includes(`dev: ${devices}`), text)
    const user = await output("grep -E 'CapEff|CapPrm' /proc/self/status", { user: 'web' })
    assert.match(user, /CapPrm:\s+0000000000000000\n?.*CapEff:\s+0000000000000000/)
  })

  test('limits are in force, and the machine can see them', async () => {
    const text = await output(
      'ulimit -n; cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null; ' +
        'cat /proc/sys/net/ipv4/ip_unprivileged_port_start',
      { limits: { cpus: 2, cpuKind: 'performance', memoryMb: 512 } },
    )
    assert.match(text, /^536870912$/m)
    assert.match(text, /^0$/m)
  })

  test('zombies of a command are reaped by PID 1', async () => {
    const text = await output('(sleep 0.05 &) ; sleep 2; ps -o pid,ppid,stat,args')
    assert.doesNotMatch(text, /\sZ\s/)
    assert.match(text, /^\s*1 .*\/\.fly\/init/m)
  })

  test('a machine with a terminal has one', async () => {
    const text = await output('test -t 1 && echo "terminal $TERM"', { tty: true })
    assert.match(text, /terminal xterm/)
  })

  test('nothing of the way to the host is to be seen inside', async () => {
    const text = await output('echo $(ls /.fly); ls -l /proc/1/fd; ls -l /proc/self/fd; env', {
      user: 'web',
    })
    assert.match(text, /^api init$/m)
    assert.doesNotMatch(text, /socket:/)
    assert.match(text, /Permission denied|can't open/)
  })

  test('a home may lie deeper than the path of a socket can be long', async () => {
    const deep = open(join(shop.dir, 'd'.repeat(60), 'e'.repeat(60)))
    const spec = shop.spec(['sh', '-c', 'echo deep; exit 3'])
    await deep.start(spec)
    assert.equal((await deep.exited(spec.id)).exitCode, 3)
    assert.equal(shop.output(spec), 'deep')
    await deep.destroy(spec.id)
  })

  test('links of the image do not lead files out of it', async () => {
    const text = await output('cat /away/key', {
      files: [{ path: '/away/key', content: Buffer.from('kept inside\n'), mode: 0o600 }],
      workdir: '/away/work',
    })
    assert.equal(text, 'kept inside')
    assert.ok(!existsSync(join(shop.dir, 'key')) && !existsSync(join(shop.dir, 'work')))
  })

  /** What a killed process left of a start. */
  const cutShort = async (spec: StartSpec, delayMs: number) => {
    const starter = `
      import { openContainerDriver } from ${JSON.stringify(join(import.meta.dirname, 'container-driver.ts'))}
      import { createLogger } from '#sys/log.ts'
      const driver = openContainerDriver({ dir: process.argv[1], hostId: process.argv[2], log: createLogger('starter') })
      await driver.probe()
      process.stdout.write('go')
      const spec = JSON.parse(process.argv[3])
      await driver.start(spec)
    `
    const args = ['--input-type=module-typescript', '-e', starter, dir, hostId]
    const child = spawn(process.execPath, [...args, JSON.stringify(spec)], {
      cwd: import.meta.dirname,
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    // On a quick machine the start may be over before the kill: its end must not be missed.
    const closed = new Promise((resolve) => child.once('close', resolve))
    const early = closed.then(() => assert.fail('the starter ended before it had begun'))
    await Promise.race([once(child.stdout, 'data'), early])
    await systemClock.sleep(delayMs)
    child.kill('SIGKILL')
    await closed
    return open(dir)
  }

  test('MCH-65: a start cut short at any moment does not take a root that is kept', async () => {
    const script = 'test -e /root/kept || echo first > /root/kept; sleep 60'
    const spec = shop.spec(['sh', '-c', script], { keepRoot: true, lastingRoot: true })
    await driver.start(spec)
    const kept = async (by: Driver) => {
      const argv = ['cat', '/root/kept']
      return (await by.exec(spec.id, { argv, timeoutMs: 60_000, outputBytesMax: 100 })).stdout
    }
    await eventually('it is written', async () => (await kept(driver)) === 'first\n')
    const overlay = mounts().find((line) => line.includes(spec.id))
    assert.doesNotMatch(overlay ?? 'volatile', /volatile/, 'what it syncs is on the disk')
    for (const delayMs of [3, 25, 50]) {
      await driver.destroy(spec.id, { keepRoot: true })
      const next = await cutShort({ ...spec, argv: ['sleep', '60'] }, delayMs)
      const found = await next.recover(spec.id)
      if (found !== 'running') await next.start({ ...spec, argv: ['sleep', '60'] })
      assert.equal(await kept(next), 'first\n')
      next.close()
    }
    await driver.destroy(spec.id)
    assert.ok(!existsSync(folderOf(spec.id).dir))
  })

  test('a start cut short at any moment can be recovered, repeated and destroyed', async () => {
    const seen = new Set<string>()
    for (const delayMs of [3, 15, 30, 50, 80]) {
      const spec = shop.spec(['sleep', '60'])
      const next = await cutShort(spec, delayMs)
      const found = await next.recover(spec.id)
      seen.add(found === 'running' ? 'running' : typeof found)
      if (found === undefined) {
        assert.ok(!(await next.list()).includes(spec.id))
        await next.start(spec)
      }
      assert.equal(await next.recover(spec.id), 'running')
      await next.destroy(spec.id)
      assert.deepEqual(
        mounts().filter((line) => line.includes(spec.id)),
        [],
      )
      assert.deepEqual(processesNaming(folderOf(spec.id).bundle), [])
    }
    assert.ok(seen.has('undefined'), 'no start was cut short')
  })

  test('an image that is wanted stays mounted until it no longer is', async () => {
    const wanted: string[] = [shop.squashfsPath]
    const keeper = openContainerDriver({ dir, hostId, log, keepImages: () => wanted })
    for (const id of await keeper.list()) await keeper.destroy(id)
    const spec = shop.spec(['true'])
    await keeper.start(spec)
    await keeper.exited(spec.id)
    await keeper.destroy(spec.id)
    assert.equal(mounts().length, 1)
    wanted.length = 0
    await keeper.releaseUnused()
    assert.deepEqual(mounts(), [])
  })

  test('when the last machine is destroyed nothing is left', async () => {
    for (const id of await driver.list()) await driver.destroy(id)
    assert.deepEqual(mounts(), [])
    await eventually('no cgroup is left', async () => {
      await driver.destroy('nothing')
      return cgroupsLeft().length === 0
    })
    assert.deepEqual(cgroupsLeft(), [])
    assert.deepEqual(readdirSync(join(dir, 'state')), [])
  })
})
