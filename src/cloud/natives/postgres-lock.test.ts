import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { systemClock } from '#core/clock.ts'
import { processStartTime } from '#sys/process.ts'
import { removeDeadLock } from './postgres-lock.ts'

test('the lock of a server that is a zombie goes, once nobody works in its folder', async () => {
  const data = mkdtempSync(join(tmpdir(), 'hangar-lock-'))
  // A parent that never reaps its first child, which prints its pid and ends.
  const parent = spawn('sh', ['-c', 'sh -c "echo \\$\\$" & exec sleep 60'], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const child = spawn('sleep', ['0.5'], { cwd: data })
  try {
    const [line] = (await once(parent.stdout, 'data')) as [Buffer]
    const zombie = Number(line.toString())
    while (processStartTime(zombie) !== undefined) await systemClock.sleep(5)
    assert.ok(existsSync(`/proc/${zombie}`), 'it was reaped: nothing is tested')
    writeFileSync(`${data}/postmaster.pid`, `${zombie}\n${data}\n`)
    writeFileSync(`${data}/.s.PGSQL.5432.lock`, `${zombie}\n${data}\n`)
    await removeDeadLock(data, data)
    assert.equal(existsSync(`${data}/postmaster.pid`), false)
    assert.equal(existsSync(`${data}/.s.PGSQL.5432.lock`), false)
    assert.equal(
      processStartTime(child.pid ?? 0),
      undefined,
      'a process still worked in the folder',
    )
  } finally {
    parent.kill('SIGKILL')
    child.kill('SIGKILL')
    rmSync(data, { recursive: true })
  }
})

test('the lock of a living process stays', async () => {
  const data = mkdtempSync(join(tmpdir(), 'hangar-lock-'))
  try {
    writeFileSync(`${data}/postmaster.pid`, `${process.pid}\n${data}\n`)
    await removeDeadLock(data, data)
    assert.ok(existsSync(`${data}/postmaster.pid`))
  } finally {
    rmSync(data, { recursive: true })
  }
})
