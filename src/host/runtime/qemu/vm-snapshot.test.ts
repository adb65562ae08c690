import assert from 'node:assert/strict'
import { once } from 'node:events'
import { mkdtempSync, rmSync, statSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { connect, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { copyFrom, memoryBytesMax } from './vm-snapshot.ts'

/** Has `bytes` sent to a copy that takes `bytesMax`; how large the file is then. */
async function copied(bytes: number, bytesMax: number): Promise<number> {
  const dir = mkdtempSync(join(tmpdir(), 'hangar-copy-'))
  const file = await open(join(dir, 'memory'), 'w')
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

test('memory and devices fit, and nothing much larger', () => {
  const bytes = memoryBytesMax({ memoryMb: 2048 })
  const pages = (2048 * 2 ** 20) / 4096
  assert.ok(bytes > 2048 * 2 ** 20 + pages * 8 + 16 * 2 ** 20)
  assert.ok(bytes < 2048 * 2 ** 20 * 1.05)
})
