import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { daemonReady, findDaemon, startDaemon, stopDaemon, type DaemonSpec } from './daemon.ts'
import { readJsonFile, tailOfFile, writeFileAtomic } from './files.ts'
import { isAlive, run, runOk, signalProcess } from './process.ts'

const dir = mkdtempSync(join(tmpdir(), 'hangar-sys-'))
after(() => rmSync(dir, { recursive: true, force: true }))

const spec = (name: string, args: string[]): DaemonSpec => ({
  name,
  command: '/bin/sh',
  args,
  logFile: join(dir, `${name}.log`),
  recordFile: join(dir, `${name}.json`),
})

test('a daemon is found again by its record, and stopped', async () => {
  const sleeper = spec('sleeper', ['-c', 'exec sleep 600'])
  const record = startDaemon(sleeper)
  await daemonReady(sleeper, record, async () => true, 60_000)
  assert.equal(findDaemon(sleeper.recordFile)?.pid, record.pid)
  await stopDaemon(sleeper.recordFile)
  assert.equal(isAlive(record), false)
  assert.equal(findDaemon(sleeper.recordFile), undefined)
})

test('a daemon that ignores SIGTERM is killed after the grace', async () => {
  const stubborn = spec('stubborn', ['-c', 'trap "" TERM; echo up; while :; do sleep 1; done'])
  const record = startDaemon(stubborn)
  await daemonReady(
    stubborn,
    record,
    async () => tailOfFile(stubborn.logFile, 10).includes('up'),
    60_000,
  )
  await stopDaemon(stubborn.recordFile, 'SIGTERM', 200)
  assert.equal(isAlive(record), false)
})

test('a daemon that dies at once is reported with the end of its log', async () => {
  const broken = spec('broken', ['-c', 'echo the port is taken; exit 3'])
  const record = startDaemon(broken)
  await assert.rejects(
    daemonReady(broken, record, async () => false, 60_000),
    /broken ended at once[\s\S]*the port is taken/,
  )
})

test('a daemon that is slow is asked less and less often', async () => {
  const slow = spec('slow', ['-c', 'exec sleep 600'])
  const record = startDaemon(slow)
  let asked = 0
  const never = async () => ++asked < 0
  await assert.rejects(daemonReady(slow, record, never, 3_000), /was not ready after 3000 ms/)
  await stopDaemon(slow.recordFile)
  assert.ok(asked < 80, `${asked} times`)
})

test('a pid that was given to somebody else is not the daemon', () => {
  const recordFile = join(dir, 'stale.json')
  writeFileSync(
    recordFile,
    JSON.stringify({ name: 'x', command: 'x', pid: process.pid, startTime: 1, startedAt: '' }),
  )
  assert.equal(findDaemon(recordFile), undefined)
  assert.equal(signalProcess({ pid: process.pid, startTime: 1 }, 'SIGKILL'), false)
})

test('a program: its output, its failure, its absence, its time limit', async () => {
  assert.equal(await runOk('cat', [], { input: 'hello' }), 'hello')
  await assert.rejects(runOk('sh', ['-c', 'echo why >&2; exit 4']), /exit code 4: why/)
  await assert.rejects(run('no-such-program', []), /cannot run no-such-program/)
  const late = await run('sleep', ['600'], { timeoutMs: 100 })
  assert.notEqual(late.code, 0)
})

test('a file is whole or not there, and a cut JSON file reads as none', () => {
  const path = join(dir, 'state.json')
  writeFileAtomic(path, '{"a":1}')
  assert.deepEqual(readJsonFile(path), { a: 1 })
  writeFileSync(path, '{"a":')
  assert.equal(readJsonFile(path), undefined)
})
