import assert from 'node:assert/strict'
import { appendFileSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import fc from 'fast-check'
import { limits } from '#core/limits.ts'
import { LogReader, LogSpool } from './index.ts'
import { formatStoredLine, parseStoredLine } from './stored-line.ts'

function spoolIn(t: TestContext): LogSpool {
  const dir = mkdtempSync(join(tmpdir(), 'hangar-logs-'))
  t.after(() => rmSync(dir, { recursive: true, force: true }))
  return new LogSpool(dir)
}

const machine = { id: 'm1', app: 'web', region: 'ord' }
const at = (seconds: number, nanos: number) =>
  `2026-01-02T03:04:${String(seconds).padStart(2, '0')}.${String(nanos).padStart(9, '0')}+00:00`

test('a line is parsed back as it was written', () => {
  fc.assert(
    fc.property(
      fc.bigInt({ min: 0n, max: 4_000_000_000_000_000_000n }),
      fc.string().filter((text) => !text.includes('\n')),
      (ns, text) => {
        const line = formatStoredLine({ ns, stream: 'stdout', text })
        assert.deepEqual(parseStoredLine(line.slice(0, -1)), {
          ns,
          stream: 'stdout',
          partial: false,
          text,
        })
      },
    ),
  )
})

test('output of several runs and platform lines come as one ordered list; partial lines are joined', async (t) => {
  const spool = spoolIn(t)
  const first = spool.prepareRun('m1', 1)
  writeFileSync(
    first,
    `${at(1, 1)} stdout F one\n${at(1, 2)} stderr P tw\n${at(1, 3)} stdout F between\n${at(1, 4)} stderr F o\n`,
  )
  writeFileSync(
    spool.prepareRun('m1', 2),
    `${at(2, 0)} stdout F three\nnot a line\n${at(3, 0)} std`,
  )
  spool.say('m1', { provider: 'runner', level: 'warn', message: 'watch out' })
  const lines = await new LogReader(spool, { machines: () => [machine], limit: 100 }).history()
  assert.deepEqual(
    lines.map((line) => [line.message, line.provider, line.level]),
    [
      ['one', 'app', 'info'],
      ['two', 'app', 'info'],
      ['between', 'app', 'info'],
      ['three', 'app', 'info'],
      ['watch out', 'runner', 'warn'],
    ],
  )
  assert.equal(lines[0]?.timestamp, '2026-01-02T03:04:01.000000001Z')
})

test('a cursor pages through everything without a gap or a repeat, also past the read limit of a file', async (t) => {
  const spool = spoolIn(t)
  const total = 12_000
  let text = ''
  for (let i = 0; i < total; i++)
    text += `${at(Math.floor(i / 1000), i % 1000)} stdout F ${'x'.repeat(100)} ${i}\n`
  writeFileSync(spool.prepareRun('m1', 1), text)
  writeFileSync(spool.prepareRun('m2', 1), `${at(11, 999_999)} stdout F last\n`)
  const machines = () => [machine, { ...machine, id: 'm2' }]
  const seen: string[] = []
  let since = '0'
  for (;;) {
    const page = await new LogReader(spool, { machines, since, limit: 5000 }).history()
    if (page.length === 0) break
    for (const line of page) seen.push(line.message.split(' ').at(-1) as string)
    since = page.at(-1)?.ns as string
  }
  assert.deepEqual(seen, [...Array.from({ length: total }, (_, i) => String(i)), 'last'])
})

test('following gives the newest lines, then each new one, also of machines and runs that come later', async (t) => {
  const spool = spoolIn(t)
  const file = spool.prepareRun('m1', 1)
  writeFileSync(file, `${at(1, 1)} stdout F old\n${at(1, 2)} stdout F newer\n`)
  const machines = [machine]
  const end = new AbortController()
  const seen: string[] = []
  const reader = new LogReader(spool, { machines: () => machines, limit: 1 })
  const following = (async () => {
    for await (const line of reader.follow(end.signal)) {
      seen.push(line.message)
      if (line.message === 'newer') appendFileSync(file, `${at(2, 1)} stdout F half`)
      if (line.message === 'newer') appendFileSync(file, ` line\n`)
      if (line.message === 'half line') {
        machines.push({ ...machine, id: 'm2' })
        writeFileSync(spool.prepareRun('m2', 1), `${at(3, 1)} stdout F other machine\n`)
      }
      if (line.message === 'other machine') end.abort()
    }
  })()
  const timer = setTimeout(() => end.abort(), 60_000)
  await following
  clearTimeout(timer)
  assert.deepEqual(seen, ['newer', 'half line', 'other machine'])
})

test('a machine stays within its bound and keeps its newest lines', async (t) => {
  const spool = spoolIn(t)
  const half = limits.logBytesPerMachineMax / 2
  for (let run = 1; run <= 3; run++) {
    const file = spool.prepareRun('m1', run)
    writeFileSync(file, Buffer.alloc(half - 1000, 'x'))
  }
  const newest = spool.prepareRun('m1', 4)
  writeFileSync(newest, Buffer.alloc(half + 1000, 'y'))
  appendFileSync(newest, `\n${at(5, 5)} stdout F kept\n`)
  await spool.sweep('m1')
  await spool.sweep('m1')
  const sizes = spool.files('m1').map((path) => statSync(path).size)
  assert.ok(sizes.reduce((a, b) => a + b, 0) <= limits.logBytesPerMachineMax + 2000, String(sizes))
  appendFileSync(newest, `${at(6, 5)} stdout F after\n`)
  const lines = await new LogReader(spool, { machines: () => [machine], limit: 10 }).history()
  assert.deepEqual(
    lines.map((line) => line.message),
    ['kept', 'after'],
  )
  spool.forget('m1')
  assert.deepEqual(spool.files('m1'), [])
})
