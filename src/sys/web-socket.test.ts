import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer } from 'node:http'
import { connect, type AddressInfo } from 'node:net'
import { test, type TestContext } from 'node:test'
import { eventually } from './test-support.ts'
import { acceptWebSockets, upgradeOptions } from './web-socket.ts'

async function serve(t: TestContext, answer: (request: Request) => Response) {
  const server = createServer(upgradeOptions)
  acceptWebSockets(server, answer)
  await once(server.listen(0, '127.0.0.1'), 'listening')
  t.after(() => {
    server.closeAllConnections()
    server.close()
  })
  return { server, port: (server.address() as AddressInfo).port }
}

/** Asks for a WebSocket at `target`, which goes out as it is. */
function ask(t: TestContext, port: number, target: string) {
  const socket = connect({ port, host: '127.0.0.1', allowHalfOpen: true })
  t.after(() => socket.destroy())
  const words = ['host: x', 'connection: upgrade', 'upgrade: websocket']
  socket.write(`GET ${target} HTTP/1.1\r\n${words.join('\r\n')}\r\n\r\n`)
  return socket
}

async function answerTo(t: TestContext, port: number, target: string): Promise<string> {
  const chunks: Buffer[] = []
  for await (const chunk of ask(t, port, target)) chunks.push(chunk as Buffer)
  return Buffer.concat(chunks).toString('utf8')
}

test('an address that is none is refused, and the server goes on', async (t) => {
  const { port } = await serve(t, ({ url }) => new Response(new URL(url).pathname))
  for (const target of ['http://u:p@x/', 'x:y', '*']) {
    assert.match(await answerTo(t, port, target), /^HTTP\/1\.1 400 /, target)
  }
  assert.match(await answerTo(t, port, '//'), /^HTTP\/1\.1 200 [^]*\r\n\r\n\/\/$/)
  assert.match(await answerTo(t, port, '/a'), /\r\n\r\n\/a$/)
})

test('who is refused and keeps the connection open is not waited for', async (t) => {
  const { server, port } = await serve(t, () => new Response('no', { status: 401 }))
  const socket = ask(t, port, '/')
  socket.resume()
  await once(socket, 'end')
  const count = () =>
    new Promise<number>((resolve) => server.getConnections((_, open) => resolve(open)))
  await eventually('it is closed', async () => (await count()) === 0)
})

test('an answer without an end is read no faster than it is taken, and ends with its reader', async (t) => {
  let given = 0
  const over = Promise.withResolvers<void>()
  const { port } = await serve(t, () => {
    const pull = (to: ReadableStreamDefaultController) => {
      given++
      to.enqueue(new Uint8Array(64 * 1024))
    }
    return new Response(new ReadableStream({ pull, cancel: () => over.resolve() }))
  })
  const socket = ask(t, port, '/')
  await once(socket, 'readable')
  assert.ok(given < 4_096, `${given} of 64 KiB`)
  socket.destroy()
  await over.promise
})
