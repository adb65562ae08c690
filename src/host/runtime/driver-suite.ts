import assert from 'node:assert/strict'
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { systemClock } from '#core/clock.ts'
import { isFault } from '#core/fault.ts'
import { readTextFile } from '#sys/files.ts'
import { run, runOk } from '#sys/process.ts'
import { eventually } from '#sys/test-support.ts'
import type { Driver, ExecRequest, OnApi, StartSpec } from './driver.ts'
import { outputSuite } from './output-suite.ts'
import { programSuite } from './program-suite.ts'
import { openWorkshop, packing, type Workshop } from './test-support.ts'

export interface SuiteOptions {
  name: string
  /** Opens a driver; opened twice over one folder, the second adopts the machines of the first. `host`: as another one. */
  open(dir: string, options: { onApi: OnApi; host?: string }): Driver
}

/** What every driver must do, run against the real thing. */
export function driverSuite(options: SuiteOptions): void {
  describe(`driver ${options.name}`, { concurrency: 1 }, () => {
    let shop: Workshop
    let driver: Driver
    let onApi: OnApi = () => {}
    const open = () =>
      options.open(join(shop.dir, 'driver'), { onApi: (...args) => onApi(...args) })
    before(async () => {
      shop = await openWorkshop()
      driver = open()
      const probe = await driver.probe()
      assert.ok(probe.ok, probe.note)
    })
    after(async () => {
      for (const id of await driver.list()) await driver.destroy(id)
      await shop.close()
    })

    /** Runs a command to its end. */
    const runToEnd = async (spec: StartSpec) => {
      await driver.start(spec)
      const end = await driver.exited(spec.id)
      return { end, output: shop.output(spec) }
    }
    const started = async (argv: string[], given: Partial<StartSpec> = {}) => {
      const spec = shop.spec(argv, given)
      await driver.start(spec)
      return spec
    }
    const exec = (spec: StartSpec, argv: string[], given: Partial<ExecRequest> = {}) =>
      driver.exec(spec.id, { argv, timeoutMs: 60_000, outputBytesMax: 1_000_000, ...given })

    test('an exit code and the output arrive', async () => {
      const { end, output } = await runToEnd(shop.spec(['sh', '-c', 'echo hello; exit 7']))
      assert.equal(end.exitCode, 7)
      assert.equal(end.signal, undefined)
      assert.equal(end.oomKilled, false)
      assert.equal(end.error, undefined)
      assert.ok(Math.abs(end.at - systemClock.now()) < 60_000)
      assert.equal(output, 'hello')
    })

    test('a signal reaches the command, with its default effect', async () => {
      const spec = await started(['sleep', '60'])
      assert.equal(await driver.recover(spec.id), 'running')
      assert.equal(await driver.signal(spec.id, 'SIGTERM'), true)
      const end = await driver.exited(spec.id)
      assert.equal(end.exitCode, 143)
      assert.equal(end.signal, 15)
      assert.equal(await driver.signal(spec.id, 'SIGTERM'), false)
    })

    test('SIGKILL ends a command that ignores everything else', async () => {
      const script = 'trap "" TERM; echo ready; while :; do sleep 1; done'
      const spec = await started(['sh', '-c', script])
      await eventually('it is ready', () => shop.output(spec) === 'ready')
      await driver.signal(spec.id, 'SIGTERM')
      await driver.signal(spec.id, 'SIGKILL')
      assert.equal((await driver.exited(spec.id)).exitCode, 137)
    })

    test('environment, user, folder, names and files are as asked', async () => {
      const script =
        'id; pwd; echo "$A|$HOME"; hostname; cat /etc/hostname /etc/hosts /etc/resolv.conf; ls -l /srv/app/key'
      const spec = shop.spec(['sh', '-c', script], {
        env: { A: 'b c' },
        user: 'web',
        workdir: '/made/here',
        hostname: 'box',
        hosts: '10.9.8.7 box\n',
        resolvConf: 'nameserver 10.1.1.1\n',
        files: [{ path: '/srv/app/key', content: Buffer.from('secret'), mode: 0o640 }],
      })
      const { end, output } = await runToEnd(spec)
      assert.equal(end.exitCode, 0, output)
      assert.match(output, /uid=1000\(web\) gid=1000\(web\) groups=.*2000\(extra\)/)
      assert.match(
        output,
        /^\/made\/here\nb c\|\/tmp\nbox\nbox\n10\.9\.8\.7 box\nnameserver 10\.1\.1\.1$/m,
      )
      assert.match(output, /-rw-r----- .* 6 .*\/srv\/app\/key/)
    })

    test('a volume keeps what is written, the root does not', async () => {
      const { source, read } = await shop.volume(driver.capabilities.volumes)
      const script = 'echo run >> /data/log; echo run >> /root/log; cat /root/log; cat /data/log'
      const spec = shop.spec(['sh', '-c', script], { mounts: [{ source, path: '/data' }] })
      assert.equal((await runToEnd(spec)).output, 'run\nrun')
      assert.equal((await runToEnd(spec)).output, 'run\nrun\nrun\nrun\nrun')
      assert.equal(await read('log'), 'run\nrun\n')
    })

    test('MCH-65: a root that is kept is there over ends, stops and kills, another image too, until it is not kept', async () => {
      const script = 'echo run >> /root/log; cat /root/log; cat /marker 2>/dev/null; exec sleep 600'
      const lasting = { keepRoot: true, lastingRoot: true }
      const spec = shop.spec(['sh', '-c', script], lasting)
      const runs = async (count: number, given: Partial<StartSpec> = {}) => {
        const before = shop.outputOf(spec)
        await driver.start({ ...spec, ...given })
        const wanted = [...before, ...Array.from({ length: count }, () => 'run')]
        await eventually('it wrote', () => shop.outputOf(spec).length >= wanted.length)
        assert.deepEqual(shop.outputOf(spec).slice(0, wanted.length), wanted)
        await exec(spec, ['sync'])
      }
      await runs(1)
      await driver.signal(spec.id, 'SIGKILL') // As an end by itself: what it held is given back, and its root stays.
      await driver.exited(spec.id)
      await runs(2)
      await driver.destroy(spec.id, { keepRoot: true })
      assert.equal(await driver.recover(spec.id), undefined)
      await assert.rejects(driver.exited(spec.id), /no machine/)
      assert.ok((await driver.list()).includes(spec.id))
      driver.close()
      driver = open()
      assert.equal(await driver.recover(spec.id), undefined)
      // Over a running one, and with a start in between that fails.
      await runs(3)
      await assert.rejects(
        driver.start({ ...spec, argv: ['sh'], user: 'ghost' }),
        /no user "ghost"/,
      )
      await driver.destroy(spec.id, { keepRoot: true })
      const squashfsPath = await shop.secondImage()
      await runs(4, { squashfsPath })
      await eventually(
        () => `it has the second image: ${shop.output(spec)}`,
        () => shop.outputOf(spec).at(-1) === 'second',
      )
      await runs(1, { keepRoot: false })
      await driver.destroy(spec.id)
      assert.ok(!(await driver.list()).includes(spec.id))
    })

    test('a root that is full is the machine’s own trouble, starts again, and grows', async () => {
      if (!driver.capabilities.rootSize) return
      // The second writer takes the blocks that were too few for the first.
      const fill =
        'dd if=/dev/zero of=/root/big bs=1M count=500 2>/dev/null; dd if=/dev/zero bs=4k of=/root/rest 2>&1 | grep -o "No space"'
      const size = 'busybox df -m / | awk "END { print \\$2 }"'
      const lasting = { keepRoot: true, lastingRoot: true }
      const spec = await started(['sh', '-c', 'echo up; sleep 600'], { ...lasting, rootSizeMb: 64 })
      const said = async (script: string) => {
        const { stdout, stderr } = await exec(spec, ['sh', '-c', script])
        return stdout.trim() + stderr
      }
      const again = async (rootSizeMb: number) => {
        await said('sync')
        await driver.destroy(spec.id, { keepRoot: true })
        await driver.start({ ...spec, rootSizeMb })
      }
      assert.equal(await said(fill), 'No space')
      assert.equal(await said('echo alive'), 'alive')
      const before = Number(await said(size))
      assert.ok(before > 30 && before <= 64, String(before))
      await again(64)
      assert.match(await said('dd if=/dev/zero of=/root/more bs=1M count=1 2>&1'), /No space/)
      await again(160)
      const grown = Number(await said(size))
      assert.ok(grown > 120 && grown <= 160, String(grown))
      assert.equal(await said('echo more > /root/more && cat /root/more'), 'more')
      await driver.destroy(spec.id)
    })

    test('VOL-14: what was written without a flush is in a copy of the disk made under the machine', async () => {
      if (!driver.still) return // The host mounts the volumes, and flushes them itself.
      const { source } = await shop.volume('disk')
      const spec = await started(['sleep', '60'], { mounts: [{ source, path: '/data' }] })
      assert.equal((await exec(spec, ['sh', '-c', 'echo late > /data/note'])).exitCode, 0)
      const copy = join(shop.dir, 'copy')
      await driver.still(spec.id, async () => copyFileSync(source, copy))
      await run('e2fsck', ['-p', copy]) // The journal of one that is in use.
      assert.equal(await runOk('debugfs', ['-R', 'cat /note', copy]), 'late\n')
      assert.equal((await exec(spec, ['cat', '/data/note'])).stdout, 'late\n')
      // A guest that cannot flush it keeps nobody from a copy.
      assert.equal((await exec(spec, ['/bin/busybox', 'umount', '/data'])).exitCode, 0)
      assert.equal(await driver.still(spec.id, async () => 'copied'), 'copied')
      await driver.destroy(spec.id)
    })

    test('MCH-42: what was written without a flush outlives a snapshot that is lost', async () => {
      if (!driver.still) return // As above: what it freezes has its page cache here.
      const { source, read } = await shop.volume('disk')
      const mounts = [{ source, path: '/data' }]
      const spec = await started(['sleep', '600'], { mounts, keepRoot: true, lastingRoot: true })
      await exec(spec, ['sh', '-c', 'echo late > /data/late; echo late > /root/late'])
      await driver.suspend(spec.id)
      await driver.destroy(spec.id, { keepRoot: true })
      await run('e2fsck', ['-p', source]) // The journal of one that was in use.
      assert.equal(await read('late'), 'late\n')
      await driver.start(spec)
      assert.equal((await exec(spec, ['cat', '/root/late'])).stdout, 'late\n')
      await driver.destroy(spec.id)
    })

    test('VOL-2, VOL-10: how full a disk is, and its growth in use and over a suspension', async () => {
      if (!driver.usage || !driver.grow) return // As above.
      const { source } = await shop.volume('disk')
      const spec = await started(['sleep', '60'], { mounts: [{ source, path: '/data' }] })
      const usage = async () => {
        const {
          blockBytes = 0,
          blocks = 0,
          blocksFree = 0,
        } = (await driver.usage?.(spec.id, source)) ?? {}
        return { total: blocks * blockBytes, used: (blocks - blocksFree) * blockBytes }
      }
      const megabyte = 1024 ** 2
      const before = await usage()
      assert.ok(before.total > 20 * megabyte && before.total < 32 * megabyte, `${before.total}`)
      await exec(spec, ['dd', 'if=/dev/zero', 'of=/data/big', 'bs=1M', 'count=8'])
      await exec(spec, ['sync'])
      assert.ok((await usage()).used >= before.used + 8 * megabyte)
      truncateSync(source, 64 * megabyte)
      assert.equal(await driver.grow(spec.id, source), true)
      assert.ok((await usage()).total > 52 * megabyte)
      await driver.suspend(spec.id)
      assert.equal(await driver.usage(spec.id, source), undefined)
      truncateSync(source, 128 * megabyte)
      assert.equal(await driver.grow(spec.id, source), false)
      await driver.resume(spec.id)
      assert.equal(await driver.grow(spec.id, source), true)
      assert.ok((await usage()).total > 110 * megabyte)
      assert.equal(await driver.grow(spec.id, source), true)
      await driver.destroy(spec.id)
      assert.equal(await driver.usage(spec.id, source), undefined)
    })

    test('a disk without a file system is refused by its path, and nobody makes one on it', async () => {
      if (driver.capabilities.volumes !== 'disk') return
      const source = join(shop.dir, 'garbage')
      const garbage = Buffer.alloc(1024 ** 2, 'not a file system')
      writeFileSync(source, garbage)
      const mounts = [{ source, path: '/data' }]
      await assert.rejects(driver.start(shop.spec(['true'], { mounts })), (error) => {
        assert.ok(isFault(error, 'native_failed'))
        return /the volume \/data/.test(error.message)
      })
      assert.ok(garbage.equals(readFileSync(source)))
    })

    test('a missing command or user is said before anything runs', async () => {
      const missing = shop.spec(['no-such-program'])
      await assert.rejects(driver.start(missing), (error) => {
        assert.ok(isFault(error, 'invalid'))
        assert.match(error.message, /command "no-such-program" was not found in the image/)
        return true
      })
      await assert.rejects(driver.start(shop.spec(['true'], { user: 'ghost' })), /no user "ghost"/)
      await assert.rejects(driver.start(shop.spec([])), /names no command/)
      assert.equal(await driver.recover(missing.id), undefined)
      assert.ok(!(await driver.list()).includes(missing.id))
    })

    test('a machine that takes too much memory is killed, and the record says why', async () => {
      const spec = shop.spec(['sh', '-c', 'x=x; while :; do x=$x$x; done'])
      const { end } = await runToEnd(spec)
      assert.equal(end.oomKilled, true)
      assert.equal(end.exitCode, 137)
    })

    test('a program run inside answers with code, output and input', async () => {
      const spec = await started(['sleep', '60'], { env: { A: 'of the machine' }, user: 'web' })
      const script = 'cat; echo "$A $B"; id -u; echo err >&2; exit 3'
      const argv = ['sh', '-c', script]
      const result = await exec(spec, argv, { stdin: 'typed\n', env: { B: 'added' } })
      assert.equal(result.stdout, 'typed\nof the machine added\n0\n')
      assert.equal(result.stderr, 'err\n')
      assert.equal(result.exitCode, 3)
      assert.equal(result.timedOut, false)
      assert.equal((await exec(spec, ['nothing-here'])).exitCode, 127)
      assert.equal((await exec(spec, ['sh', '-c', 'kill -9 $$'])).signal, 9)
      await driver.destroy(spec.id)
      await assert.rejects(exec(spec, ['true']), /not running/)
    })

    test('a program run inside has an end and a limit', async () => {
      const spec = await started(['sleep', '60'])
      const argv = ['sh', '-c', 'sleep 71 & sleep 71; echo never']
      const result = await exec(spec, argv, { timeoutMs: 400 })
      assert.equal(result.timedOut, true)
      assert.equal(result.exitCode, 124)
      const left = (await driver.ps(spec.id)).map((process) => process.command)
      assert.ok(!left.some((command) => command.includes('71')), left.join('; '))
      const flood = await exec(spec, ['head', '-c', '100000', '/dev/zero'], {
        outputBytesMax: 1000,
      })
      assert.equal(flood.stdout.length, 1000)
      const background = await exec(spec, ['sh', '-c', 'sleep 30 & echo done'])
      assert.equal(background.stdout, 'done\n')
      assert.equal(background.exitCode, 0)
      await driver.destroy(spec.id)
    })

    programSuite({
      driver: () => driver,
      again: () => open(),
      started: (argv) => started(argv),
    })

    test('processes and their listening sockets are listed', async () => {
      const spec = await started(['httpd', '-f', '-p', '8080'])
      const listed = await eventually('it listens', async () => {
        const now = await driver.ps(spec.id)
        return now.some((row) => row.listen_sockets.length > 0) && now
      })
      assert.equal(listed[0]?.pid, 1)
      const server = listed.find((row) => row.command.includes('8080') && row.pid !== 1)
      assert.ok(server, JSON.stringify(listed))
      assert.equal(server.directory, '/')
      assert.match(server.listen_sockets[0]?.address ?? '', /^(0\.0\.0\.0|\[::\]):8080$/)
      assert.equal(server.listen_sockets[0]?.proto, 'tcp')
      const stats = await driver.stats(spec.id)
      assert.equal(stats?.memoryMaxBytes, 256 * 1024 * 1024)
      assert.ok(stats.memoryBytes > 0 && stats.processes >= 2)
      await driver.destroy(spec.id)
    })

    test('a suspended machine does nothing, and goes on where it was', async () => {
      if (driver.capabilities.suspend === 'none') return
      const script = 'i=0; while :; do i=$((i+1)); echo $i > /tmp/count; done'
      const spec = await started(['sh', '-c', script])
      const cpu = async () => (await driver.stats(spec.id))?.cpuUsec ?? 0
      await driver.suspend(spec.id)
      const frozenAt = await cpu()
      await systemClock.sleep(150)
      assert.equal(await cpu(), frozenAt)
      assert.equal(await driver.recover(spec.id), 'running')
      await driver.resume(spec.id)
      await eventually('it goes on', async () => (await cpu()) > frozenAt)
      await driver.suspend(spec.id)
      assert.equal(await driver.signal(spec.id, 'SIGTERM'), true)
      assert.equal((await driver.exited(spec.id)).exitCode, 143)
    })

    test('MCH-41: the clock is right after a suspend and a copy, and the gap is nobody’s end', async () => {
      if (driver.capabilities.suspend === 'none') return
      const spec = await started(['sleep', '600'])
      /** At least: it was read at some moment of the call, and in whole seconds. */
      const offMs = async () => {
        const begun = systemClock.now()
        const { stdout } = await exec(spec, ['date', '+%s'])
        const read = Number(stdout) * 1000
        return Math.max(begun - (read + 1_000), read - systemClock.now(), 0)
      }
      await driver.suspend(spec.id)
      await systemClock.sleep(3_500)
      await driver.resume(spec.id)
      assert.ok((await offMs()) < 1_000)
      await driver.still?.(spec.id, () => systemClock.sleep(3_500))
      assert.ok((await offMs()) < 1_000)
      await driver.destroy(spec.id)
    })

    test('MCH-44: what asks through /.fly/api to be suspended has its answer, and others see an end', async () => {
      if (driver.capabilities.suspend === 'none') return
      const asked = Promise.withResolvers<string>()
      const heard: string[] = []
      onApi = (id, connection) => {
        connection.on('data', (words: Buffer) => {
          heard.push(words.toString())
          if (words.toString() !== 'suspend me') return
          connection.write('yes')
          asked.resolve(id)
        })
      }
      const script = 'ask "never answered" & ask "suspend me"; wait; echo goes on; sleep 600'
      const spec = await started(['sh', '-c', script])
      assert.equal(await asked.promise, spec.id)
      // What nobody has read when a connection ends makes its end an error.
      await eventually('both are heard', () => heard.length >= 2)
      await driver.suspend(spec.id)
      await systemClock.sleep(100)
      await driver.resume(spec.id)
      await eventually('it goes on', () => shop.output(spec).endsWith('goes on'))
      assert.deepEqual(shop.output(spec).split('\n').toSorted(), [' end', 'goes on', 'yes end'])
      await driver.destroy(spec.id)
    })

    test('a second driver adopts what the first one started', async () => {
      const long = await started(['sh', '-c', 'trap "exit 5" USR1; while :; do sleep 0.05; done'])
      const short = await started(['sh', '-c', 'exit 4'])
      await driver.exited(short.id)
      driver.close()
      const second = open()
      assert.equal(await second.recover(long.id), 'running')
      const ended = await second.recover(short.id)
      assert.equal(ended === 'running' ? 'running' : ended?.exitCode, 4)
      assert.equal((await second.exited(short.id)).exitCode, 4)
      const bothHear = Promise.all([second.exited(long.id), driver.exited(long.id)])
      await second.signal(long.id, 'SIGUSR1')
      assert.deepEqual(
        (await bothHear).map((end) => end.exitCode),
        [5, 5],
      )
    })

    outputSuite({
      shop: () => shop,
      driver: () => driver,
      reopen: () => (driver = open()),
    })

    test('destroy leaves nothing, again and for the unknown', async () => {
      const spec = await started(['sleep', '60'])
      const end = driver.exited(spec.id)
      await driver.destroy(spec.id)
      assert.equal((await end).exitCode, 137)
      await driver.destroy(spec.id)
      await driver.destroy('neverwas')
      assert.equal(await driver.recover(spec.id), undefined)
      assert.ok(!(await driver.list()).includes(spec.id))
      await assert.rejects(driver.exited(spec.id), /no machine/)
    })

    test('a host on which nothing runs has no control group, also while it keeps records', async () => {
      const idle = options.open(join(shop.dir, 'idle'), { onApi, host: 'idle' })
      const roots = [
        '/sys/fs/cgroup',
        ...readdirSync('/sys/fs/cgroup').map((at) => `/sys/fs/cgroup/${at}`),
      ]
      const groups = () =>
        roots
          .filter((at) => statSync(at).isDirectory())
          .flatMap((at) => readdirSync(at))
          .filter((name) => name.includes(`${process.pid}idle`))
      const [long, short] = [shop.spec(['sleep', '60']), shop.spec(['true'])]
      for (const spec of [long, short]) await idle.start(spec)
      await idle.exited(short.id)
      await idle.releaseUnused()
      assert.equal(await idle.recover(long.id), 'running')
      assert.ok(groups().length > 0)
      await idle.signal(long.id, 'SIGKILL')
      await idle.exited(long.id)
      // What an ended machine held is given back behind its end.
      for (let i = 0; i < 200 && groups().length > 0; i++) {
        await systemClock.sleep(10)
        await idle.releaseUnused()
      }
      assert.deepEqual(groups(), [])
      assert.equal((await idle.exited(short.id)).exitCode, 0)
      for (const { id } of [long, short]) await idle.destroy(id)
      idle.close()
    })

    test('what runs of a machine whose records are lost is found, and ended; no other host’s', async () => {
      const spec = await started(['sleep', '60'])
      const other = options.open(join(shop.dir, 'other'), { onApi, host: 'other' })
      const neighbour = shop.spec(['sleep', '60'])
      await other.start(neighbour)
      driver.close()
      const lost = join(shop.dir, 'lost')
      renameSync(join(shop.dir, 'driver/machines', spec.id), lost)
      driver = open()
      const runs = () =>
        readdirSync('/proc').some((pid) => {
          const groups = /^\d+$/.test(pid) ? readTextFile(`/proc/${pid}/cgroup`) : ''
          return groups?.includes(`/${spec.id}\n`) ?? false
        })
      assert.ok(runs())
      const found = await driver.list()
      assert.ok(found.includes(spec.id) && !found.includes(neighbour.id))
      assert.equal(await driver.recover(spec.id), undefined)
      assert.ok(!runs())
      assert.ok(!(await driver.list()).includes(spec.id))
      await run('umount', ['--lazy', join(lost, 'root')])
      // It starts again as if nothing had been, beside what the lost one left.
      await driver.start(spec)
      assert.equal(await driver.recover(spec.id), 'running')
      await driver.destroy(spec.id)
      assert.equal(await other.recover(neighbour.id), 'running')
      await other.destroy(neighbour.id)
      other.close()
    })

    test('a machine can be started again after its end, and over a running one', async () => {
      const spec = shop.spec(['sleep', '60'])
      await driver.start(spec)
      await driver.start({ ...spec, argv: ['sh', '-c', 'exit 6'] })
      assert.equal((await driver.exited(spec.id)).exitCode, 6)
      await driver.start({ ...spec, argv: ['sh', '-c', 'exit 8'] })
      assert.equal((await driver.exited(spec.id)).exitCode, 8)
    })

    test('an image whose /etc is a link, out of the image or within it, gets its files where that is inside', async () => {
      for (const [name, target] of [
        ['out', '../../../../../../tmp'],
        ['within', '/conf/etc'],
      ] as const) {
        const root = join(shop.dir, `etc-${name}`)
        for (const folder of ['app', 'tmp', 'conf/etc']) {
          mkdirSync(join(root, folder), { recursive: true })
        }
        copyFileSync('/bin/busybox', join(root, 'app/busybox'))
        symlinkSync(target, join(root, 'etc'))
        const squashfsPath = join(shop.dir, `etc-${name}.sqfs`)
        await runOk('gensquashfs', [...packing, '--pack-dir', root, squashfsPath])
        const here = readFileSync('/etc/hosts', 'utf8')
        const script = '/app/busybox cat /etc/hosts /etc/resolv.conf'
        const argv = ['/app/busybox', 'sh', '-c', script]
        const hosts = `10.9.8.7 ${name}-link\n`
        const spec = shop.spec(argv, { squashfsPath, hosts })
        const { end, output } = await runToEnd(spec)
        assert.equal(end.exitCode, 0, output)
        assert.equal(output, `10.9.8.7 ${name}-link\nnameserver 192.0.2.53`)
        assert.equal(readFileSync('/etc/hosts', 'utf8'), here)
        assert.ok(!existsSync('/tmp/hosts') && !existsSync('/tmp/resolv.conf'))
        await driver.destroy(spec.id)
      }
    })

    test('an image that holds one program and nothing else runs', async () => {
      const root = join(shop.dir, 'scratch')
      mkdirSync(join(root, 'app'), { recursive: true })
      writeFileSync(join(root, 'app/busybox'), readFileSync('/bin/busybox'), { mode: 0o755 })
      const squashfsPath = join(shop.dir, 'scratch.sqfs')
      await runOk('gensquashfs', [...packing, '--pack-dir', root, squashfsPath])
      const argv = ['/app/busybox', 'sh', '-c', 'echo $PATH; exit 9']
      const spec = shop.spec(argv, { squashfsPath, user: '4321' })
      const { end } = await runToEnd(spec)
      assert.equal(end.exitCode, 9, shop.output(spec))
      await driver.destroy(spec.id)
    })
  })
}
