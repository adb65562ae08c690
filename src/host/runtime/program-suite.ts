import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import type { Readable } from 'node:stream'
import { test } from 'node:test'
import { systemClock } from '#core/clock.ts'
import { isFault } from '#core/fault.ts'
import { eventually } from '#sys/test-support.ts'
import type { Driver, Program, ProgramRequest, StartSpec } from './driver.ts'

export interface ProgramSuiteOptions {
  driver: () => Driver
  /** Another one over the same folder. */
  again: () => Driver
  started: (argv: string[]) => Promise<StartSpec>
}

const tty = { rows: 24, columns: 80 }

/** What a terminal shows. */
function watch(program: Program): (wanted: RegExp) => Promise<void> {
  let text = ''
  program.stdout.on('data', (chunk: Buffer) => (text += chunk.toString()))
  return async (wanted) =>
    void (await eventually(
      () => `${wanted} is in ${JSON.stringify(text)}`,
      () => wanted.test(text),
    ))
}

async function textOf(stream: Readable): Promise<string> {
  return Buffer.concat((await stream.toArray()) as Buffer[]).toString()
}

/** What every driver must do with programs whose streams stay open; a part of the one suite. */
export function programSuite({ driver, again, started }: ProgramSuiteOptions): void {
  const open = (
    spec: StartSpec,
    argv: string[],
    given: Partial<ProgramRequest> = {},
    by: Driver = driver(),
  ) => by.openProgram(spec.id, { argv, timeoutMs: 60_000, ...given })
  const runs = async (spec: StartSpec, words: string) =>
    (await driver().ps(spec.id)).some(({ command }) => command.includes(words))

  test('a program with a terminal sees its size, each change of it, Ctrl-C and the end', async () => {
    const spec = await started(['sleep', '300'])
    const script = 'trap "stty size" WINCH; stty size; while :; do sleep 0.1; done'
    const sized = await open(spec, ['sh', '-c', script], { tty })
    const sees = watch(sized)
    await sees(/24 80/)
    sized.resize({ rows: 50, columns: 132 })
    await sees(/50 132/)
    sized.close()
    await assert.rejects(sized.exited)
    const shell = await open(spec, ['sh'], { tty, env: { TERM: 'vt100' } })
    const shows = watch(shell)
    shell.stdin.write('echo "$TERM $HOME"; test -t 0 && test -t 2 && echo is"-a-"tty\n')
    await shows(/vt100 \/root\r\nis-a-tty/)
    shell.stdin.write('sleep 81\n')
    await eventually('sleep 81 has begun', () => runs(spec, 'sleep 81'))
    shell.stdin.write('\x03')
    shell.stdin.write('echo after"-"it\n')
    await shows(/after-it/)
    assert.equal(await runs(spec, 'sleep 81'), false)
    shell.stdin.end('exit 5\n')
    assert.equal((await shell.exited).exitCode, 5)
    const reader = await open(spec, ['cat'], { tty })
    reader.stdout.resume()
    reader.stdin.end('half a line')
    assert.equal((await reader.exited).exitCode, 0)
    await driver().destroy(spec.id)
  })

  test('a program without a terminal has three streams, and hears the end of its input', async () => {
    const spec = await started(['sleep', '300'])
    const counting = await open(spec, ['sh', '-c', 'wc -c; echo apart >&2; exit 3'])
    counting.stdin.end('hello')
    const [stdout, stderr] = await Promise.all([textOf(counting.stdout), textOf(counting.stderr)])
    assert.deepEqual([stdout.trim(), stderr], ['5', 'apart\n'])
    const { exitCode, signal, timedOut } = await counting.exited
    assert.deepEqual({ exitCode, signal, timedOut }, { exitCode: 3, signal: 0, timedOut: false })
    const missing = await open(spec, ['nothing-here'])
    assert.match(await textOf(missing.stderr), /not found/)
    assert.equal((await missing.exited).exitCode, 127)
    const signalled = await open(spec, [
      'sh',
      '-c',
      'trap "exit 9" USR1; echo ready; while :; do sleep 0.05; done',
    ])
    await watch(signalled)(/ready/)
    signalled.signal('SIGUSR1')
    assert.equal((await signalled.exited).exitCode, 9)
    const late = await open(spec, ['sleep', '82'], { timeoutMs: 300 })
    const end = await late.exited
    assert.deepEqual([end.timedOut, end.exitCode], [true, 124])
    await driver().destroy(spec.id)
    await assert.rejects(open(spec, ['true']), (error) => isFault(error, 'precondition_failed'))
  })

  test('a megabyte goes through a program both ways, no faster than it is read', async () => {
    const spec = await started(['sleep', '300'])
    const content = Buffer.alloc(1024 * 1024, 'Hangar\0\xff')
    const program = await open(spec, ['cat'])
    let taken = 0
    let at = 0
    const feed = () => {
      for (let goesOn = true; goesOn && at < content.length; at += 16_384) {
        goesOn = program.stdin.write(content.subarray(at, at + 16_384))
      }
    }
    program.stdin.on('drain', feed)
    feed()
    await systemClock.sleep(1_500)
    assert.ok(at < 900_000, `${at} bytes were taken from us while nobody read`)
    const hash = createHash('sha256')
    for await (const chunk of program.stdout) {
      taken += (chunk as Buffer).length
      hash.update(chunk as Buffer)
      if (taken === content.length) program.stdin.end()
    }
    assert.equal(taken, content.length)
    assert.equal(hash.digest('hex'), createHash('sha256').update(content).digest('hex'))
    assert.equal((await program.exited).exitCode, 0)
    await driver().destroy(spec.id)
  })

  test('nothing is left of a program that was given up, or whose host went away', async () => {
    const spec = await started(['sleep', '300'])
    const ends = async (words: string) =>
      eventually(`${words} has ended`, async () => !(await runs(spec, words)))
    const closed = await open(spec, ['sh', '-c', 'sleep 83 & sleep 83'], { tty })
    await eventually('sleep 83 has begun', () => runs(spec, 'sleep 83'))
    closed.close()
    await assert.rejects(closed.exited, /given up/)
    await ends('sleep 83')
    const second = again()
    driver().close()
    // Appended to: a file that is written anew is empty for a moment, which may be the last.
    const beat = 'cat /proc/uptime >> /tmp/beat'
    const script = `${beat}; echo ready; while :; do ${beat}; sleep 0.1; done`
    const lost = await open(spec, ['sh', '-c', script], {}, second)
    await watch(lost)(/ready/)
    second.close()
    await assert.rejects(lost.exited)
    // Whoever connects next ends it too: it must have ended long before.
    await systemClock.sleep(5_000)
    const argv = ['cat', '/tmp/beat', '/proc/uptime']
    const { stdout } = await driver().exec(spec.id, {
      argv,
      timeoutMs: 60_000,
      outputBytesMax: 100_000,
    })
    const [last = 0, now = 0] = stdout.trim().split('\n').slice(-2).map(Number.parseFloat)
    assert.ok(now - last > 1, `it still ran ${now - last} s ago`)
    await driver().destroy(spec.id)
  })
}
