import assert from 'node:assert/strict'
import { mkdtempSync, readdirSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import { isFault } from '#core/fault.ts'
import { run, runOk } from '#sys/process.ts'
import { makeUpper } from './upper-disk.ts'

const mebibyte = 1024 * 1024

function place(t: TestContext) {
  const templates = mkdtempSync(join(tmpdir(), 'hangar-upper-'))
  t.after(() => rmSync(templates, { recursive: true }))
  const path = join(templates, 'upper.img')
  return {
    path,
    make: (sizeMb: number, keep: boolean) => makeUpper(path, { templates, sizeMb, keep }),
    write: async (words: string) => {
      const file = join(templates, 'words')
      writeFileSync(file, words)
      await runOk('debugfs', ['-w', '-R', `write ${file} words`, path])
    },
    read: async () => (await run('debugfs', ['-R', 'cat /words', path])).stdout,
    sizeMb: async () => {
      const said = await runOk('dumpe2fs', ['-h', path])
      const field = (name: string) => Number(new RegExp(`^${name}: +(\\d+)$`, 'm').exec(said)?.[1])
      return (field('Block count') * field('Block size')) / mebibyte
    },
  }
}

test('MCH-65: a disk is empty unless it is kept, and a kept one grows and never shrinks', async (t) => {
  const { make, write, read, sizeMb, path } = place(t)
  await make(64, true)
  await write('kept')
  await make(64, true)
  assert.equal(await read(), 'kept')
  await make(160, true)
  assert.deepEqual([await read(), await sizeMb()], ['kept', 160])
  await make(64, true)
  assert.deepEqual([await read(), await sizeMb()], ['kept', 160])
  assert.ok(statSync(path).blocks * 512 < 24 * mebibyte, 'it is sparse')
  await runOk('e2fsck', ['-f', '-n', path])
  await make(64, false)
  assert.deepEqual([await read(), await sizeMb()], ['', 64])
})

test('a growth that a killed host left half done is finished, not taken for done', async (t) => {
  const { make, write, read, sizeMb, path } = place(t)
  await make(64, true)
  await write('kept')
  truncateSync(path, 128 * mebibyte)
  await make(128, true)
  assert.deepEqual([await read(), await sizeMb()], ['kept', 128])
})

test('a disk that cannot be repaired is neither started with nor lost', async (t) => {
  const { make, path } = place(t)
  await make(64, true)
  const size = statSync(path).size
  writeFileSync(path, Buffer.alloc(size, 0xa5))
  const damaged = (error: unknown) =>
    isFault(error, 'native_failed') && /is damaged: .*rootfs.persist/.test(error.message)
  await assert.rejects(make(64, true), damaged)
  await assert.rejects(make(64, true), damaged)
  assert.equal(statSync(path).size, size)
  await make(64, false)
})

test('disks that are the first of their size and made at once are whole, each', async (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'hangar-upper-'))
  t.after(() => rmSync(dir, { recursive: true, force: true }))
  const disks = Array.from({ length: 8 }, (_, i) => join(dir, `disk-${i}`))
  const given = { templates: dir, sizeMb: 512, keep: false }
  await Promise.all(disks.map((path) => makeUpper(path, given)))
  for (const path of disks) await runOk('e2fsck', ['-f', '-n', path])
  assert.ok(!readdirSync(dir).some((name) => name.endsWith('.new')))
})
