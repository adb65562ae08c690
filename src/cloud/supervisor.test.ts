import assert from 'node:assert/strict'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeEach, test } from 'node:test'
import { findDaemon } from '#sys/daemon.ts'
import { eventually } from '#sys/test-support.ts'
import type { Home } from './home.ts'
import type { Part } from './part.ts'
import { readStatus } from './status.ts'
import { superviseParts } from './supervisor.ts'
import { fakePart, quiet, removeHome, stopPart, temporaryHome } from './test-support.ts'

const sleeper = 'setInterval(() => {}, 1000)'

let home: Home
let parts: Part[]
let stop: AbortController
let running: Promise<void> | undefined

beforeEach(() => {
  home = temporaryHome()
  parts = []
  stop = new AbortController()
})
afterEach(async () => {
  stop.abort()
  await running
  for (const part of parts) await stopPart(part)
  removeHome(home)
})

function supervise(...given: Part[]): void {
  parts = given
  stop = new AbortController()
  running = superviseParts({ home, parts, log: quiet, signal: stop.signal })
}

const reportOf = (part: Part) => readStatus(home, process.pid)?.parts[part.name]
const stateOf = (part: Part) => reportOf(part)?.state
const pidOf = (part: Part) => findDaemon(part.recordFile)?.pid
const ready = (part: Part) => eventually(`${part.name} is ready`, () => stateOf(part) === 'ready')

test('a part that is killed is started again', async () => {
  const part = fakePart(home, 'sleeper', sleeper)
  supervise(part)
  await ready(part)
  const first = pidOf(part) as number
  process.kill(first, 'SIGKILL')
  await eventually('another one runs', () => {
    const now = pidOf(part)
    return now !== undefined && now !== first
  })
  await ready(part)
  assert.equal(reportOf(part)?.failures, 1)
})

test('the end of a supervisor leaves its parts alone, and the next one adopts them', async () => {
  const part = fakePart(home, 'sleeper', sleeper)
  supervise(part)
  await ready(part)
  const first = pidOf(part)
  stop.abort()
  await running
  assert.equal(pidOf(part), first, 'the part outlives its supervisor')
  supervise(part)
  await eventually('adopted', () => reportOf(part)?.adopted === true)
  assert.equal(pidOf(part), first)
})

test('a record of a process that is not ours is not adopted', async () => {
  const part = fakePart(home, 'sleeper', sleeper)
  // Our own pid with another start time: what a reused pid looks like.
  writeFileSync(part.recordFile, JSON.stringify({ name: 'x', pid: process.pid, startTime: 1 }))
  supervise(part)
  await ready(part)
  assert.notEqual(pidOf(part), process.pid)
  assert.equal(reportOf(part)?.adopted, false)
})

test('a part waits for the parts that it needs', async () => {
  const go = join(home.dir, 'go')
  const first = fakePart(home, 'first', sleeper, { probe: async () => existsSync(go) })
  const second = fakePart(home, 'second', sleeper, { needs: ['first'] })
  supervise(first, second)
  await eventually('first starts', () => stateOf(first) === 'starting')
  await new Promise((resolve) => setTimeout(resolve, 200))
  assert.equal(stateOf(second), 'waiting')
  assert.equal(pidOf(second), undefined)
  writeFileSync(go, '')
  await ready(second)
})

test('a part that dies at once is tried again with pauses, and its last words and the remedy are told', async () => {
  const starts = join(home.dir, 'starts')
  const part = fakePart(
    home,
    'crasher',
    `require('fs').appendFileSync(${JSON.stringify(starts)}, 'x'); console.error('no such luck'); process.exit(3)`,
    { probe: async () => false },
  )
  supervise(part)
  await eventually('it failed three times', () => (reportOf(part)?.failures ?? 0) >= 3)
  assert.match(
    reportOf(part)?.message ?? '',
    /crasher ended at once[^]*no such luck[^]*mend crasher/,
  )
  await new Promise((resolve) => setTimeout(resolve, 500))
  const tries = readFileSync(starts, 'utf8').length
  assert.ok(tries < 8, `${tries} starts within a second are a loop without brakes`)
})

test('a part that runs but never becomes ready is stopped before the next try', async () => {
  const part = fakePart(home, 'mute', sleeper, { probe: async () => false, readyTimeoutMs: 300 })
  const pids = new Set<number>()
  supervise(part)
  await eventually('two tries', () => {
    const pid = pidOf(part)
    if (pid) pids.add(pid)
    return pids.size >= 2
  })
  const alive = [...pids].filter((pid) => existsSync(`/proc/${pid}/exe`) && pid !== pidOf(part))
  assert.deepEqual(alive, [])
})

test('a part that is only slow is given more time at each try, and comes up', async () => {
  const begun = join(home.dir, 'begun')
  const part = fakePart(
    home,
    'slow',
    `require('fs').writeFileSync(${JSON.stringify(begun)}, String(Date.now())); setInterval(() => {}, 1000)`,
    {
      readyTimeoutMs: 300,
      // The file is there a moment before what is written in it.
      probe: async () => Date.now() - (Number(readFileSync(begun, 'utf8')) || Date.now()) > 1_000,
    },
  )
  supervise(part)
  await eventually('it is ready', () => reportOf(part)?.state === 'ready')
  assert.ok((reportOf(part)?.failures ?? 0) >= 1)
})
