import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import fc from 'fast-check'
import { limits } from '#core/limits.ts'
import { LogFileReader } from './log-file.ts'
import { RunLog } from './index.ts'

function filesIn(t: TestContext) {
  const dir = mkdtempSync(join(tmpdir(), 'hangar-run-log-'))
  t.after(() => rmSync(dir, { recursive: true, force: true }))
  return { log: join(dir, 'run.log'), place: join(dir, 'place') }
}

const linesOf = async (path: string) =>
  (await new LogFileReader(path).read(limits.logBytesPerMachineMax, 0n)).lines

const pieceOf = (
  stream: 'stdout' | 'stderr',
  text: string,
  offset: bigint,
  at = 1_700_000_000_000,
) => ({
  stream,
  data: Buffer.from(text),
  at,
  offset,
})

test('lines cut anywhere are whole again, in order, each with a moment of its own', async (t) => {
  const { log, place } = filesIn(t)
  const run = await RunLog.open(log, place)
  await run.write(pieceOf('stdout', 'one\ntw', 0n))
  await run.write(pieceOf('stderr', 'other\n', 6n))
  await run.write(pieceOf('stdout', 'o\n\nlast', 12n))
  await run.finish(1_700_000_000_001)
  await run.close()
  const lines = await linesOf(log)
  assert.deepEqual(
    lines.map(({ stream, text }) => `${stream} ${text}`),
    ['stdout one', 'stderr other', 'stdout two', 'stdout ', 'stdout last'],
  )
  const moments = readFileSync(log, 'utf8').split('\n').filter(Boolean)
  assert.deepEqual(moments, moments.toSorted())
  assert.equal(new Set(moments.map((line) => line.split(' ')[0])).size, moments.length)
})

test('bytes that are no UTF-8 stay as they are', async (t) => {
  const { log, place } = filesIn(t)
  const run = await RunLog.open(log, place)
  const data = Buffer.from([0x61, 0xff, 0xc3, 0xa4, 0x0a])
  await run.write({ stream: 'stdout', data, at: 0, offset: 0n })
  await run.close()
  assert.ok(readFileSync(log).subarray(-5).equals(data))
})

test('a writer killed at any moment is followed by one that writes each byte once', async (t) => {
  const piece = fc.record({
    stream: fc.constantFrom('stdout', 'stderr'),
    words: fc.constantFrom('a\n', 'b', 'cc\nd', '\n'),
  })
  await fc.assert(
    fc.asyncProperty(
      fc.array(piece, { minLength: 1, maxLength: 8 }),
      fc.nat(),
      async (pieces, cut) => {
        const { log, place } = filesIn(t)
        let offset = 0n
        const outputs = pieces.map(({ stream, words }) => {
          const output = pieceOf(stream, words, offset)
          offset += BigInt(words.length)
          return output
        })
        const first = await RunLog.open(log, place)
        for (const output of outputs) await first.write(output)
        await first.close()
        const wanted = readFileSync(log, 'utf8')
        // The kernel had taken only so much of the last write when the process died.
        const last = wanted.split('\n').at(-2) ?? ''
        truncateSync(log, wanted.length - (cut % (last.length + 2)))
        const next = await RunLog.open(log, place)
        for (const output of outputs) {
          if (output.offset >= next.offset) await next.write(output)
        }
        assert.equal(next.offset, offset)
        await next.close()
        const text = (all: string) => all.replaceAll(/^\S+ /gm, '')
        assert.equal(text(readFileSync(log, 'utf8')), text(wanted))
      },
    ),
    { numRuns: 60 },
  )
})

test('a log that was cut meanwhile goes on, and one that is full begins anew', async (t) => {
  const { log, place } = filesIn(t)
  const run = await RunLog.open(log, place)
  await run.write(pieceOf('stdout', 'first\n', 0n))
  truncateSync(log, 0)
  await run.write(pieceOf('stdout', 'second\n', 6n))
  await run.write(pieceOf('stdout', 'again\n', 13n))
  await run.close()
  truncateSync(log, 0)
  const next = await RunLog.open(log, place)
  assert.equal(next.offset, 19n)
  writeFileSync(log, Buffer.alloc(limits.logBytesPerMachineMax - 10, 'x'))
  await next.write(pieceOf('stdout', 'third\n', 19n))
  assert.ok(statSync(log).size < 100)
  await next.close()
})

test('a machine that floods is held to the rate of its log', async (t) => {
  const { log, place } = filesIn(t)
  const run = await RunLog.open(log, place)
  const flood = Buffer.alloc(1024 * 1024, 'y\n')
  const begun = performance.now()
  let offset = 0n
  for (; statSync(log).size < limits.logBurstBytesMax; offset += BigInt(flood.length)) {
    await run.write({ stream: 'stdout', data: flood, at: 0, offset })
  }
  const written = statSync(log).size - limits.logBurstBytesMax
  const leastMs = (written / limits.logBytesPerSecondMax) * 1000
  assert.ok(performance.now() - begun >= leastMs * 0.9, `${leastMs}`)
  await run.close()
})
