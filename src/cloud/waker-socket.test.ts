import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import http from 'node:http'
import type { Readable } from 'node:stream'
import { test } from 'node:test'
import { freePort } from '#sys/test-support.ts'
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

function ask(port: number): Promise<string> {
  return new Promise((resolve, reject) => {
    const request = http.get({ host: '127.0.0.1', port, path: '/', agent: false }, (answer) => {
      let text = ''
      answer.on('data', (chunk: Buffer) => (text += chunk.toString()))
      answer.on('end', () => resolve(text))
    })
    request.on('error', reject)
  })
}

test('requests made while no edge lives wait and are served by the next one', async () => {
  const socket = openWakerSocket(await freePort())
  try {
    // Before the first edge, too.
    const early = ask(socket.port)
    const first = await startChild(socket)
    assert.equal(await early, String(first.pid))

    first.kill('SIGKILL')
    await once(first, 'exit')
    let answered = 0
    const waiting = Array.from({ length: 50 }, () =>
      ask(socket.port).then((text) => ((answered += 1), text)),
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
  }
})

test('a port that somebody has is a fault that says how to find out who', async () => {
  const first = openWakerSocket(await freePort())
  try {
    assert.throws(() => openWakerSocket(first.port), /ss -ltnp/)
  } finally {
    first.close()
  }
})
