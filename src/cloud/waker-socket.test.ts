import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import http from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Readable } from 'node:stream'
import { test } from 'node:test'
import { openWakerSocket, type WakerSocket } from './waker-socket.ts'

/** Stands for an edge: serves its own pid on the inherited descriptor. */
const child = `require('http').createServer((q, s) => s.end(String(process.pid)))
  .listen({ fd: 3 }, () => console.log('listening'))`

async function startChild(socket: WakerSocket) {
  const started = spawn(process.execPath, ['-e', child], {
    stdio: ['ignore', 'pipe', 'inherit', socket.fd],
  })
  await once(started.stdout as Readable, 'data')
  return started
}

function ask(socketPath: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const request = http.get({ socketPath, path: '/', agent: false }, (answer) => {
      let text = ''
      answer.on('data', (chunk: Buffer) => (text += chunk.toString()))
      answer.on('end', () => resolve(text))
    })
    request.on('error', reject)
  })
}

test('requests made while no edge lives wait and are served by the next one', async () => {
  const dir = mkdtempSync(join(tmpdir(), 'hangar-waker-'))
  const socket = openWakerSocket(join(dir, 'waker.sock'))
  try {
    // Before the first edge, too.
    const early = ask(socket.path)
    const first = await startChild(socket)
    assert.equal(await early, String(first.pid))

    first.kill('SIGKILL')
    await once(first, 'exit')
    let answered = 0
    const waiting = Array.from({ length: 50 }, () =>
      ask(socket.path).then((text) => ((answered += 1), text)),
    )
    await new Promise((resolve) => setTimeout(resolve, 200))
    assert.equal(answered, 0, 'the parent accepted a connection itself')

    const second = await startChild(socket)
    const answers = await Promise.all(waiting)
    assert.deepEqual(new Set(answers), new Set([String(second.pid)]))
    second.kill('SIGKILL')
    await once(second, 'exit')
  } finally {
    socket.close()
    rmSync(dir, { recursive: true })
  }
})

test('a socket left by an earlier supervisor is replaced', () => {
  const dir = mkdtempSync(join(tmpdir(), 'hangar-waker-'))
  try {
    const old = openWakerSocket(join(dir, 'waker.sock'))
    const fresh = openWakerSocket(join(dir, 'waker.sock'))
    assert.notEqual(old.fd, fresh.fd)
    old.close()
    // The name belongs to the successor, and to an edge that outlives us.
    assert.ok(existsSync(fresh.path))
    fresh.close()
    assert.ok(existsSync(fresh.path))
  } finally {
    rmSync(dir, { recursive: true })
  }
})
