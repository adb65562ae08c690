import assert from 'node:assert/strict'
import { mkdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { systemClock } from '#core/clock.ts'
import { runOk } from '#sys/process.ts'
import { eventually } from '#sys/test-support.ts'
import type { Driver } from './driver.ts'
import type { Workshop } from './test-support.ts'

export interface OutputSuiteOptions {
  shop: () => Workshop
  driver: () => Driver
  /** Puts another driver over the same folder in its place. */
  reopen: () => void
}

/** What every driver must do with the output of machines; a part of the one suite. */
export function outputSuite({ shop, driver, reopen }: OutputSuiteOptions): void {
  test('a host that is away at the end learns the code, and loses no output and has none twice', async () => {
    const script =
      'i=0; while [ $i -lt 3000 ]; do i=$((i+1)); echo line $i; done; sleep 0.2; echo last >&2; exit 6'
    const spec = shop().spec(['sh', '-c', `sleep 0.1; ${script}`])
    await driver().start(spec)
    await eventually('it writes', () => shop().output(spec).includes('line 1'))
    driver().close()
    await systemClock.sleep(500)
    reopen()
    assert.equal(await driver().recover(spec.id), 'running')
    const end = await driver().exited(spec.id)
    assert.equal(end.exitCode, 6)
    assert.equal(end.error, undefined)
    const wanted = Array.from({ length: 3000 }, (_, i) => `line ${i + 1}`)
    assert.deepEqual(shop().output(spec).split('\n').toSorted(), [...wanted, 'last'].toSorted())
  })

  test('a command has an empty input, and may open its output anew, whichever user it runs as', async () => {
    const script = 'cat; echo by path > /dev/stdout; echo too > /dev/stderr; printf unended'
    const spec = shop().spec(['sh', '-c', script], { user: 'web' })
    await driver().start(spec)
    const end = await driver().exited(spec.id)
    const lines = shop().outputOf(spec)
    assert.equal(end.exitCode, 0, lines.join())
    assert.deepEqual(lines.toSorted(), ['by path', 'too', 'unended'].toSorted())
  })

  test('a log that cannot be written costs output, and neither the machine nor its end', async () => {
    const dir = join(shop().dir, 'full')
    mkdirSync(dir)
    await runOk('mount', ['-t', 'tmpfs', '-o', 'size=32k', 'none', dir])
    try {
      const words = 'w=$(head -c 3000 /dev/zero | tr "\\0" w)'
      const script = `${words}; trap 'echo last; exit 6' USR1; while :; do echo $w; sleep 0.01; done`
      const spec = shop().spec(['sh', '-c', script], { logFile: join(dir, 'log') })
      await driver().start(spec)
      const size = () => statSync(spec.logFile).size
      const exec = (...argv: string[]) =>
        driver().exec(spec.id, { argv, timeoutMs: 60_000, outputBytesMax: 1_000 })
      const grown = (bytes: number) =>
        eventually(
          () => `${size()} bytes have become ${bytes}`,
          () => size() >= bytes,
        )
      await grown(30_000)
      for (let i = 0; i < 3; i++) {
        assert.equal((await exec('echo', 'there')).stdout, 'there\n')
        await systemClock.sleep(300)
      }
      // One whose end comes while nothing can be written.
      const other = shop().spec(['sh', '-c', 'echo nowhere to go; exit 5'], {
        logFile: join(dir, 'other'),
      })
      await driver().start(other)
      assert.equal((await driver().exited(other.id)).exitCode, 5)
      assert.deepEqual(shop().outputOf(other), [])
      await runOk('mount', ['-o', 'remount,size=4m', dir])
      await grown(40_000)
      await driver().signal(spec.id, 'SIGUSR1')
      assert.equal((await driver().exited(spec.id)).exitCode, 6)
      const lines = shop().outputOf(spec)
      assert.equal(lines.at(-1), 'last')
      const torn = lines.filter((line) => !/^(w{3000}|last)$/.test(line))
      assert.deepEqual(torn, [])
      for (const { id } of [spec, other]) await driver().destroy(id)
    } finally {
      await runOk('umount', ['--lazy', dir])
    }
  })
}
