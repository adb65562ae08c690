import assert from 'node:assert/strict'
import { readFileSync, renameSync, rmSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { after, afterEach, before, describe, test } from 'node:test'
import { systemClock } from '#core/clock.ts'
import { isFault } from '#core/fault.ts'
import { eventually } from '#sys/test-support.ts'
import {
  buildRoot,
  listenTo,
  plainRun,
  removeRoot,
  startBox,
  type Box,
  type Heard,
} from './test-support.ts'
import { collect } from './collect.ts'
import { dialUnix } from './dial.ts'
import type { GuestRun } from './messages.ts'
import type { GuestOptions } from './guest.ts'

const patienceMs = 60_000

describe('PID 1 in namespaces of its own', { concurrency: 1, timeout: 600_000 }, () => {
  let root: string
  const open: { box: Box; heard: Heard }[] = []
  before(async () => {
    root = await buildRoot()
  })
  afterEach(async () => {
    for (const { box, heard } of open.splice(0)) {
      heard.guest.close()
      box.process.kill('SIGKILL')
      await box.over
    }
  })
  after(() => removeRoot(root))

  const start = async (
    argv: string[],
    given: Partial<GuestRun> = {},
    options: Partial<GuestOptions> = {},
  ) => {
    const box = await startBox(root)
    const heard = listenTo(box, options)
    open.push({ box, heard })
    const { pid } = await heard.guest.run(plainRun(argv, given), patienceMs)
    return { box, pid, ...heard }
  }
  const sh = (script: string, given: Partial<GuestRun> = {}, options: Partial<GuestOptions> = {}) =>
    start(['sh', '-c', script], given, options)
  const exec = (
    heard: Pick<Heard, 'guest'>,
    script: string,
    given: { stdin?: string; timeoutMs?: number; outputBytesMax?: number } = {},
  ) =>
    heard.guest.exec({
      argv: ['sh', '-c', script],
      timeoutMs: patienceMs,
      outputBytesMax: 1_000_000,
      ...given,
    })

  test('output apart, the exit code, and the same code for whoever started PID 1', async () => {
    const { guest, text, box } = await sh('echo out; echo err >&2; exit 7')
    const exit = await guest.exited
    assert.equal(exit.exitCode, 7)
    assert.equal(exit.signal, undefined)
    assert.equal(text('stdout'), 'out\n')
    assert.equal(text('stderr'), 'err\n')
    assert.ok(Math.abs(exit.at - systemClock.now()) < patienceMs)
    assert.equal(await box.over, 7)
  })

  test('a signal has its default effect on the main process, and PID 1 passes its own on', async () => {
    const first = await start(['sleep', '60'])
    first.guest.signal(15)
    assert.deepEqual((({ exitCode, signal }) => ({ exitCode, signal }))(await first.guest.exited), {
      exitCode: 143,
      signal: 15,
    })
    const second = await sh('trap "exit 5" USR1; echo ready; while :; do sleep 0.02; done')
    while (second.text() !== 'ready\n') await systemClock.sleep(5)
    await exec(second, 'kill -USR1 1')
    assert.equal((await second.guest.exited).exitCode, 5)
  })

  test('a stop kills after its timeout', async () => {
    const { guest, text } = await sh('trap "" TERM; echo ready; while :; do sleep 1; done')
    while (text() !== 'ready\n') await systemClock.sleep(5)
    const begun = performance.now()
    guest.stop(15, 300)
    assert.equal((await guest.exited).exitCode, 137)
    assert.ok(performance.now() - begun >= 290)
  })

  test('environment, user, groups, folder and files are as asked', async () => {
    const { guest, text } = await sh(
      'id; pwd; echo "$A|$HOME"; ls -l /srv/app/key; cat /etc/hosts',
      {
        env: { A: 'b c' },
        user: 'web',
        workdir: '/made/here',
        hosts: '10.9.8.7 box\n',
        files: [{ path: '/srv/app/key', content: Buffer.from('secret'), mode: 0o640 }],
      },
    )
    assert.equal((await guest.exited).exitCode, 0, text())
    assert.match(text(), /uid=1000\(web\) gid=1000\(web\) groups=.*2000\(extra\)/)
    assert.match(text(), /^\/made\/here\nb c\|\/tmp$/m)
    assert.match(text(), /-rw-r----- .* 6 .*\/srv\/app\/key\n10\.9\.8\.7 box/)
    assert.equal(readFileSync(join(root, 'srv/app/key'), 'utf8'), 'secret')
  })

  test('a missing command, user or nothing at all is said, and another run may follow', async () => {
    const box = await startBox(root)
    const heard = listenTo(box)
    open.push({ box, heard })
    await assert.rejects(heard.guest.run(plainRun(['no-such-program']), patienceMs), (error) => {
      assert.ok(isFault(error, 'invalid'))
      assert.match(error.message, /command "no-such-program" was not found in the image/)
      return true
    })
    await assert.rejects(
      heard.guest.run(plainRun(['true'], { user: 'ghost' }), patienceMs),
      /no user "ghost"/,
    )
    await assert.rejects(heard.guest.run(plainRun([]), patienceMs), /names no command/)
    const script = 'for fd in /proc/1/fd/*; do echo ${fd##*/} $(readlink $fd); done'
    await heard.guest.run(plainRun(['sh', '-c', `${script}; exit 3`]), patienceMs)
    assert.equal((await heard.guest.exited).exitCode, 3)
    const sockets = heard
      .text()
      .split('\n')
      .filter((line) => /^([3-9]|\d\d+) socket:/.test(line))
    assert.equal(sockets.length, 3, 'the way to the host, this host, and one socket for programs')
  })

  test('orphans are reaped', async () => {
    const heard = await start(['sleep', '60'])
    await exec(heard, 'for i in 1 2 3 4 5; do (sleep 0.05 &) ; done')
    await eventually('none is left', async () => {
      const { stdout } = await exec(heard, "grep -hE '^(Name|State)' /proc/[0-9]*/status")
      return !/zombie|Name:\s+sleep[^]*Name:\s+sleep/.test(stdout)
    })
  })

  test('an exec has input, output, both ends, an environment, a folder and a user', async () => {
    const heard = await start(['sleep', '60'], {
      env: { A: 'of the machine' },
      workdir: '/tmp',
      user: 'web',
    })
    const result = await heard.guest.exec({
      argv: ['sh', '-c', 'cat; echo "$A $B"; id -u; pwd; echo err >&2; exit 3'],
      env: { B: 'added' },
      stdin: 'typed\n',
      timeoutMs: patienceMs,
      outputBytesMax: 10_000,
    })
    assert.deepEqual(result, {
      exitCode: 3,
      signal: 0,
      timedOut: false,
      stdout: 'typed\nof the machine added\n0\n/tmp\n',
      stderr: 'err\n',
    })
    const missing = await heard.guest.exec({
      argv: ['nothing-here'],
      timeoutMs: patienceMs,
      outputBytesMax: 1000,
    })
    assert.equal(missing.exitCode, 127)
    assert.match(missing.stderr, /nothing-here: not found/)
    assert.equal((await exec(heard, 'kill -9 $$')).signal, 9)
  })

  test('an exec past its time is killed with all that it started', async () => {
    const heard = await start(['sleep', '60'])
    const result = await exec(heard, 'sleep 71 & sleep 71; echo never', { timeoutMs: 300 })
    assert.equal(result.timedOut, true)
    assert.equal(result.exitCode, 124)
    const left = (await heard.guest.ps()).map((row) => row.command)
    assert.ok(!left.some((command) => command.includes('71')), left.join('; '))
  })

  test('a background process does not hold up the end of an exec', async () => {
    const heard = await start(['sleep', '60'])
    const result = await exec(heard, 'sleep 600 & echo done')
    assert.equal(result.stdout, 'done\n')
    assert.equal(result.timedOut, false)
  })

  test('a background process that writes for ever does not hold up the end of an exec either', async () => {
    const box = await sh('exec sleep 600')
    const { exitCode, stdout } = await exec(box, 'cat /dev/zero & echo begun', {
      outputBytesMax: 5,
    })
    assert.deepEqual([exitCode, stdout.length], [0, 5])
  })

  test('a pipe or an endless device in the place of /etc/passwd does not keep PID 1', async () => {
    const box = await sh('exec sleep 600')
    const passwd = join(root, 'etc/passwd')
    renameSync(passwd, `${passwd}.kept`)
    try {
      for (const put of ['mkfifo /etc/passwd', 'rm /etc/passwd; ln -s /dev/zero /etc/passwd']) {
        await exec(box, put)
        const { exitCode, stdout } = await exec(box, 'echo alive', { timeoutMs: patienceMs })
        assert.deepEqual([exitCode, stdout], [0, 'alive\n'])
      }
    } finally {
      rmSync(passwd, { force: true })
      renameSync(`${passwd}.kept`, passwd)
    }
  })

  test('megabytes go in and out of an exec unharmed', async () => {
    const heard = await start(['sleep', '60'])
    const stdin = 'x'.repeat(3_000_000)
    const result = await exec(heard, 'cat', { stdin, outputBytesMax: 5_000_000 })
    assert.ok(result.stdout === stdin)
    const flood = await exec(heard, 'head -c 20000000 /dev/zero', { outputBytesMax: 1000 })
    assert.equal(flood.stdout.length, 1000)
    assert.equal(flood.exitCode, 0)
  })

  test('input for a program that closed it, or ended, harms neither PID 1 nor the main process', async () => {
    const heard = await start(['sleep', '60'])
    for (let i = 0; i < 5; i++) {
      const result = await exec(heard, 'exec <&-; sleep 0.1; echo done', {
        stdin: 'x'.repeat(200_000),
      })
      assert.equal(result.stdout, 'done\n')
    }
    assert.deepEqual(heard.exits, [])
    assert.equal((await heard.guest.ps())[1]?.command, 'sleep 60')
  })

  test('a terminal has a size that changes, signals, and an end of input', async () => {
    const heard = await start(['sleep', '60'])
    const process = heard.guest.open({
      kind: 'program',
      argv: ['sh'],
      tty: { rows: 24, columns: 80 },
    })
    let text = ''
    process.stdout.on('data', (chunk: Buffer) => (text += chunk.toString()))
    const until = (wanted: RegExp) =>
      eventually(
        () => `${wanted} is in ${JSON.stringify(text)}`,
        () => wanted.test(text),
      )
    process.stdin.write('stty size\n')
    await until(/24 80/)
    process.resize({ rows: 50, columns: 132 })
    process.stdin.write('stty size; test -t 0 && echo is"-a-"tty\n')
    await until(/50 132[^]*is-a-tty/)
    process.stdin.write('sleep 60\n')
    await until(/sleep 60/)
    await systemClock.sleep(100)
    process.stdin.write('\x03')
    process.stdin.write('echo after"-"it\n')
    await until(/after-it/)
    process.stdin.end()
    assert.equal((await process.exited).signal, 0)
  })

  test('the end of input of a terminal is not lost to a program that reads otherwise than the one before', async () => {
    const heard = await start(['sleep', '60'])
    const tty = { rows: 24, columns: 80 }
    // While it sleeps the terminal takes lines; the shell's prompt then takes single keys.
    const shell = heard.guest.open({ kind: 'program', argv: ['sh'], tty })
    let text = ''
    shell.stdout.on('data', (chunk: Buffer) => (text += chunk.toString()))
    shell.stdin.write('echo be"-"gun; sleep 0.3; echo do"-"ne\n')
    await eventually('it has begun', () => text.includes('be-gun'))
    shell.stdin.end()
    assert.deepEqual(await shell.exited, { exitCode: 0, signal: 0, timedOut: false, words: '' })
    assert.match(text, /do-ne/)
    // One end of file for each program that reads up to it.
    const argv = ['sh', '-c', 'cat; stty -icanon; stty icanon; cat; echo all read']
    const readers = heard.guest.open({ kind: 'program', argv, tty })
    const read = collect(readers.stdout, 1000)
    readers.stdin.end('one\n')
    assert.equal((await readers.exited).exitCode, 0)
    await read.ended
    assert.match(read.text(), /one[^]*all read/)
  })

  test('files are copied in and out, whole', async () => {
    const heard = await start(['sleep', '60'])
    const content = Buffer.alloc(2_000_000, 'ab\0c')
    await heard.guest.copyIn('/srv/deep/file', content, { mode: 0o600, user: 'web' })
    const stat = statSync(join(root, 'srv/deep/file'))
    assert.deepEqual([stat.mode & 0o777, stat.uid], [0o600, 1000])
    const chunks: Buffer[] = []
    for await (const chunk of heard.guest.copyOut('/srv/deep/file')) chunks.push(chunk as Buffer)
    assert.ok(Buffer.concat(chunks).equals(content))
    await assert.rejects(async () => {
      for await (const _ of heard.guest.copyOut('/no/such/file'));
    }, /No such file/)
    await assert.rejects(heard.guest.copyIn('/proc/nowhere/x', content), /\/proc\/nowhere/)
  })

  test('processes with their listening sockets, and numbers of the machine', async () => {
    const heard = await start(['httpd', '-f', '-p', '18080'])
    const listed = await eventually('it listens', async () => {
      const now = await heard.guest.ps()
      return now.some((row) => row.listen_sockets.length > 0) && now
    })
    assert.equal(listed[0]?.pid, 1)
    const server = listed.find((row) => row.pid === heard.pid)
    assert.equal(server?.command, 'httpd -f -p 18080')
    assert.equal(server.directory, '/')
    assert.match(server.listen_sockets[0]?.address ?? '', /^(0\.0\.0\.0|\[::\]):18080$/)
    const stats = await heard.guest.stats()
    assert.ok(stats.memoryTotalBytes > stats.memoryAvailableBytes && stats.processes >= 2)
  })

  test('a flood of output loses nothing and does not hold up anything else', async () => {
    let bytes = 0
    const heard = await sh(
      'head -c 30000000 /dev/zero; echo; echo last',
      {},
      { onOutput: (output) => void (bytes += output.data.length) },
    )
    assert.equal((await exec(heard, 'echo quick')).stdout, 'quick\n')
    const exit = await heard.guest.exited
    assert.equal(exit.outputLost, 0n)
    assert.equal(bytes, 30_000_006)
  })

  test('a host that is killed loses no output and no end; the next one takes over', async () => {
    const kept: string[] = []
    const first = await sh(
      'i=0; while [ $i -lt 400 ]; do i=$((i+1)); echo line $i; sleep 0.002; done; exit 9',
      {},
      {
        onOutput: (output) => void kept.push(output.data.toString()),
      },
    )
    await eventually('some of it is safe', () => first.guest.outputSafe > 0n)
    // What a killed process leaves: no goodbye, and no acknowledgement after the last one.
    first.guest.close()
    const outputFrom = first.guest.outputSafe
    await systemClock.sleep(1_200)
    const second = listenTo(first.box, {
      outputFrom,
      onOutput: (output) => void kept.push(output.data.toString()),
    })
    open.push({ box: first.box, heard: second })
    assert.equal((await second.guest.run(plainRun(['never']), patienceMs)).pid > 1, true)
    assert.equal((await second.guest.exited).exitCode, 9)
    const expected = Array.from({ length: 400 }, (_, i) => `line ${i + 1}\n`).join('')
    assert.equal(kept.join(''), expected)
    assert.equal(await first.box.over, 9)
  })

  test('a host that breaks off in the middle of a frame ends what it ran, and is followed by another', async () => {
    const heard = await start(['sleep', '60'])
    const lost = exec(heard, 'sleep 72')
    lost.catch(() => {})
    await systemClock.sleep(100)
    heard.guest.letGo()
    await assert.rejects(lost, /connection into machine test broke/)
    heard.guest.reconnect()
    await heard.guest.connected(patienceMs)
    await eventually('it has ended', async () =>
      (await heard.guest.ps()).every((row) => !row.command.includes('72')),
    )
  })

  test('a host that takes nothing cannot stop the machine: the oldest output goes, and is counted', async () => {
    const script = 'head -c 4000000 /dev/zero; echo end; sleep 61'
    const heard = await sh(script, {}, { onOutput: () => new Promise(() => {}) })
    const past = async () => (await heard.guest.ps()).some((row) => row.command === 'sleep 61')
    while (!(await past())) await systemClock.sleep(20)
    heard.guest.close()
    const next = listenTo(heard.box)
    open.push({ box: heard.box, heard: next })
    await next.guest.connected(patienceMs)
    next.guest.signal(9)
    const exit = await next.guest.exited
    assert.ok(exit.outputLost > 0n)
    assert.match(next.text(), /end\n$/)
    assert.ok(next.notes.some((words) => /bytes of output were lost/.test(words)))
  })

  test('a frozen machine may be silent: nothing under way is given up', async () => {
    let frozen = false
    const lost: string[] = []
    const heard = await sh(
      'sleep 60',
      {},
      {
        pingEveryMs: 20,
        pingDeadlineMs: 1_500,
        asleep: () => frozen,
        onLost: (why) => void lost.push(why),
      },
    )
    const { pid } = heard.box.process
    const pid1 = Number(readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8'))
    const running = exec(heard, 'sleep 0.1; echo through')
    frozen = true
    process.kill(pid1, 'SIGSTOP')
    await systemClock.sleep(3_000)
    process.kill(pid1, 'SIGCONT')
    frozen = false
    assert.equal((await running).stdout, 'through\n')
    assert.deepEqual(lost, [])
    process.kill(pid1, 'SIGSTOP')
    while (lost.length === 0) await systemClock.sleep(10)
    process.kill(pid1, 'SIGCONT')
    assert.match(lost[0] ?? '', /said nothing/)
  })

  test('/.fly/api reaches the host, and answers clearly where there is nothing', async () => {
    const ask = async (request = 'GET / HTTP/1.0\r\n\r\n') => {
      const connection = await dialUnix(join(root, '.fly/api'))
      if (request) connection.write(request)
      const answer = collect(connection, 10_000)
      await answer.ended
      return answer.text()
    }
    const first = await start(
      ['sleep', '60'],
      {},
      {
        onApi: (connection) => {
          let request = ''
          connection.on('data', (chunk: Buffer) => {
            request += chunk.toString()
            if (request.endsWith('\r\n\r\n')) connection.end(`heard ${request.length} bytes`)
          })
        },
      },
    )
    assert.equal(await ask(), 'heard 18 bytes')
    first.guest.close()
    await eventually('it is seen that the host went', async () => {
      const answer = await Promise.race([ask(''), systemClock.sleep(1_000)])
      return /503[^]*the host is not there now/.test(answer ?? '')
    })
    const second = listenTo(first.box)
    open.push({ box: first.box, heard: second })
    await second.guest.connected(patienceMs)
    assert.match(await ask(), /501[^]*no API of its own yet/)
  })
})
