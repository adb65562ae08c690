import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { run } from '#sys/process.ts'

const dir = mkdtempSync(join(tmpdir(), 'hangar-report-'))
after(() => rmSync(dir, { recursive: true, force: true }))

test('every verdict of a file that is ended at once is counted, the last one too', async () => {
  const file = join(dir, 'many.test.mjs')
  writeFileSync(
    file,
    `import { test } from 'node:test'
     for (let i = 0; i < 100; i++) test('x' + i, () => { if (i === 99) throw Error('the last') })`,
  )
  const preload = join(import.meta.dirname, 'support/whole-report.ts')
  const args = ['--import', preload, '--test', '--test-force-exit', '--test-reporter=tap', file]
  // Of its own, and no part of the run that this test is in.
  const { stdout, code } = await run('env', ['-u', 'NODE_TEST_CONTEXT', process.execPath, ...args])
  assert.equal(code, 1)
  assert.match(stdout, /^# tests 100$/m)
  assert.match(stdout, /the last/)
})
