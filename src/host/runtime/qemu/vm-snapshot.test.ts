import assert from 'node:assert/strict'
import { once } from 'node:events'
import { existsSync, mkdirSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { connect, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { vmFolder, vmFolders } from './vm-folder.ts'
import { copyFrom, memoryBytesMax } from './vm-snapshot.ts'
import { judgeLoad } from './vm-tries.ts'

/** Has `bytes` sent to a copy that takes `bytesMax`; how large the file is then. */
async function copied(bytes: number, bytesMax: number, to?: string): Promise<number> {
  const dir = mkdtempSync(join(tmpdir(), 'hangar-copy-'))
  const file = await open(to ?? join(dir, 'memory'), 'w')
  const server = createServer({ pauseOnConnect: true }).listen(join(dir, 'socket'))
  await once(server, 'listening')
  const { signal } = new AbortController()
  const copy = copyFrom(server, { to: file.fd, bytesMax, signal })
  const sender = connect(join(dir, 'socket')).on('error', () => {})
  sender.end(Buffer.alloc(bytes, 7))
  try {
    await copy
    return statSync(join(dir, 'memory')).size
  } finally {
    sender.destroy()
    server.close()
    await file.close()
    rmSync(dir, { recursive: true })
  }
}

test('a monitor cannot fill the disk with what it calls its memory', async () => {
  assert.equal(await copied(300_000, 300_000), 300_000)
  await assert.rejects(copied(300_001, 300_000), /more to save than 300000 bytes/)
})

test('memory that the disk has no room for is refused in these words', async () => {
  await assert.rejects(copied(1_000, 2_000, '/dev/full'), /the host's disk is full; remove/)
})

test('memory and devices fit, and nothing much larger', () => {
  const bytes = memoryBytesMax({ memoryMb: 2048 })
  const pages = (2048 * 2 ** 20) / 4096
  assert.ok(bytes > 2048 * 2 ** 20 + pages * 8 + 16 * 2 ** 20)
  assert.ok(bytes < 2048 * 2 ** 20 * 1.05)
})

test('a monitor that its host kept from running is no try of the snapshot', () => {
  const dir = mkdtempSync(join(tmpdir(), 'hangar-tries-'))
  try {
    const folders = vmFolders(dir)
    const at = vmFolder(folders, 'm1')
    mkdirSync(at.snapshot, { recursive: true })
    const judge = (words: string) => {
      writeFileSync(at.vmmLog, words)
      return judgeLoad(folders, at)
    }
    for (const words of [
      'qemu-system-x86_64: cannot set up guest memory: Cannot allocate memory',
      'Could not access KVM kernel module: No such file or directory',
      'nsenter: cannot open /run/netns/m1: bad',
    ]) {
      assert.equal(judge(words), undefined)
      assert.ok(!existsSync(at.triesFile), words)
    }
    assert.equal(judge(''), undefined)
    assert.ok(existsSync(at.triesFile))
    assert.match(judge('load of migration failed: Invalid argument') ?? '', /not understand/)
    assert.ok(!existsSync(at.snapshot))
  } finally {
    rmSync(dir, { recursive: true, force: true, maxRetries: 5 })
  }
})
