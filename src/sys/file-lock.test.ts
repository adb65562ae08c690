import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { isFault } from '#core/fault.ts'
import { withFileLock } from './file-lock.ts'

test('one at a time holds a file, a failure lets go of it, and so does kill -9', async () => {
  const dir = mkdtempSync(join(tmpdir(), 'hangar-lock-'))
  const file = join(dir, 'lock')
  const lock = { file, purpose: 'this test', waitMs: 60_000 }
  try {
    let inside = 0
    let most = 0
    const work = () =>
      withFileLock(lock, async () => {
        most = Math.max(most, ++inside)
        await sleep(30)
        inside--
      })
    await Promise.all([work(), work(), work()])
    assert.equal(most, 1)
    await assert.rejects(
      withFileLock(lock, () => Promise.reject(new Error('mine'))),
      /mine/,
    )
    const script = `
      import { withFileLock } from ${JSON.stringify(join(import.meta.dirname, 'file-lock.ts'))}
      const lock = { file: process.argv[1], purpose: 'the other', waitMs: 60_000 }
      await withFileLock(lock, () => {
        console.log('held')
        return new Promise((resolve) => setTimeout(resolve, 600_000))
      })
    `
    const other = spawn(process.execPath, ['--input-type=module', '-e', script, file], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    await once(other.stdout, 'data')
    await assert.rejects(withFileLock({ ...lock, waitMs: 100 }, work), (error) => {
      return (
        isFault(error, 'conflict') &&
        error.message.includes(`the other (pid ${other.pid}) holds ${file}`)
      )
    })
    const nowhere = { ...lock, file: join(dir, 'missing', 'lock') }
    await assert.rejects(withFileLock(nowhere, work), (error) => isFault(error, 'native_failed'))
    other.kill('SIGKILL')
    assert.equal(await withFileLock(lock, async () => 'mine again'), 'mine again')
  } finally {
    rmSync(dir, { recursive: true })
  }
})
