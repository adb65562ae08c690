import assert from 'node:assert/strict'
import { once } from 'node:events'
import { test, type TestContext } from 'node:test'
import { systemClock } from '#core/clock.ts'
import { Fault, isFault } from '#core/fault.ts'
import type { ProgramEnd } from './runtime/driver.ts'
import { programStreams, writeProgramQuery, type ProgramQuery } from '#spec/program.ts'
import { eventually } from '#sys/test-support.ts'
import { openWebSocket, type WebSocket } from '#sys/web-socket.ts'
import { createTestMachine, openTestHost, testKey, type TestHost } from './testing.ts'

const open = (host: TestHost, id: string, query: Partial<ProgramQuery>, key = testKey) =>
  openWebSocket(host.url, {
    path: `/v1/machines/${id}/exec?${writeProgramQuery(query)}`,
    headers: { authorization: `Bearer ${key}` },
    timeoutMs: 30_000,
  })

interface Heard {
  stdout: string
  stderr: string
  words: unknown[]
  closed: Promise<unknown>
}

function listenTo(socket: WebSocket): Heard {
  const heard: Heard = { stdout: '', stderr: '', words: [], closed: once(socket, 'close') }
  socket.on('message', (data: Buffer, binary) => {
    const text = data.toString('utf8', binary ? 1 : 0)
    if (!binary) heard.words.push(JSON.parse(text))
    else heard[data[0] === programStreams.stdout ? 'stdout' : 'stderr'] += text
  })
  socket.resume()
  return heard
}

const running = async (t: TestContext) => {
  const host = await openTestHost(t)
  const { id } = await createTestMachine(host)
  return { host, id }
}
const exit = { type: 'exit', exit_code: 0, signal: 0, timed_out: false }
const asEdge = { 'x-hangar-source': 'proxy' }

test('input, output, signals, sizes and the end go over one WebSocket', async (t) => {
  const { host, id } = await running(t)
  const query = { command: ['sh', '-c', 'a b'], tty: true, rows: 5, columns: 7, term: 'vt52' }
  const asked: unknown[] = []
  const { onOpen } = host.driver
  host.driver.onOpen = (machine, request) => {
    asked.push(request)
    return onOpen(machine, request)
  }
  const socket = await open(host, id, { ...query, timeout: 9 })
  const heard = listenTo(socket)
  for (const input of [
    { type: 'resize', rows: 10, columns: 20 },
    { type: 'signal', signal: 'SIGINT' },
  ]) {
    socket.send(JSON.stringify(input))
  }
  socket.send(Buffer.from('typed '))
  socket.send(Buffer.from('in'))
  socket.send('{"type":"eof"}')
  await heard.closed
  assert.deepEqual([heard.stdout, heard.stderr], ['typed in', '10x20\nSIGINT\n'])
  assert.deepEqual(heard.words, [exit])
  assert.deepEqual(asked, [
    {
      argv: query.command,
      tty: { rows: 5, columns: 7 },
      env: { TERM: 'vt52' },
      timeoutMs: 9_000,
    },
  ])
})

test('what cannot be opened is answered in words, before there is a WebSocket', async (t) => {
  const { host, id } = await running(t)
  const refused = async (
    what: Promise<unknown>,
    code: Parameters<typeof isFault>[1],
    words: RegExp,
  ) =>
    assert.rejects(what, (error) => {
      assert.ok(isFault(error, code), String(error))
      assert.match(error.message, words)
      return true
    })
  await refused(open(host, id, { cmd: 'ls' }, 'wrong'), 'unauthorized', /cluster key/)
  await refused(open(host, 'nobody', { cmd: 'ls' }), 'not_found', /machine not found/)
  await refused(open(host, id, {}), 'invalid', /name a program/)
  await refused(open(host, id, { cmd: 'ls', rows: 0 }), 'invalid', /rows/)
  await refused(open(host, id, { cmd: 'ls', timeout: 10 ** 9 }), 'invalid', /timeout/)
  await refused(open(host, id, { cmd: "ls '" }), 'invalid', /open ' quote/)
  await refused(host.call('GET', `/v1/machines/${id}/exec?cmd=ls`), 'bad_request', /WebSocket/)
  await host.call('POST', `/v1/machines/${id}/stop`, {})
  await host.call('GET', `/v1/machines/${id}/wait?state=stopped`)
  await refused(open(host, id, { cmd: 'ls' }), 'precondition_failed', /start it first/)
  assert.equal(host.agent.execs.any(id), false)
})

test('a client that leaves, and one that breaks the rules, end their program', async (t) => {
  const { host, id } = await running(t)
  const socket = await open(host, id, { cmd: 'cat' })
  const heard = listenTo(socket)
  socket.send(Buffer.from('here'))
  await eventually('it is echoed', () => heard.stdout === 'here')
  assert.equal(host.agent.execs.any(id), true)
  socket.terminate()
  await eventually('its program has ended', () => !host.agent.execs.any(id))
  for (const nonsense of ['no json', '{"type":"dance"}', '{"type":"signal","signal":"SIGNONE"}']) {
    const rude = await open(host, id, { cmd: 'cat' })
    const { closed } = listenTo(rude)
    rude.send(nonsense)
    assert.deepEqual(((await closed) as unknown[])[0], 1008, nonsense)
    await eventually('its program has ended', () => !host.agent.execs.any(id))
  }
})

test('a program whose output nobody takes is not read on, and the host ends with it open', async (t) => {
  const { host, id } = await running(t)
  const socket = await open(host, id, { cmd: 'cat' })
  // Paused as it came: what it sends comes back and is not read.
  let sent = 0
  const chunk = Buffer.alloc(64 * 1024)
  while (sent < 256 * chunk.length && socket.bufferedAmount < 16 * chunk.length) {
    socket.send(chunk)
    sent += chunk.length
    await systemClock.sleep(1)
  }
  assert.ok(sent < 256 * chunk.length, `${sent} bytes went in while nobody read`)
  const closed = once(socket, 'close')
  socket.resume()
  host.crash()
  await closed
})

test('whoever sat in a machine that stops hears of the stop, and not of a connection or of signal 9', async (t) => {
  const { host, id } = await running(t)
  const broken = new Fault('native_failed', 'the connection broke')
  const killed = { exitCode: 137, signal: 9, timedOut: false }
  const openOne = async () => {
    const ended = Promise.withResolvers<ProgramEnd>()
    const { onOpen } = host.driver
    host.driver.onOpen = (machine, request) => {
      const program = onOpen(machine, request)
      ended.promise.finally(() => program.stdin.end()).catch(() => {})
      return { ...program, exited: ended.promise }
    }
    const heard = listenTo(await open(host, id, { cmd: 'cat' }))
    host.driver.onOpen = onOpen
    return { ...ended, heard }
  }
  const [one, two] = [await openOne(), await openOne()]
  const [three, four] = [await openOne(), await openOne()]
  one.reject(broken)
  two.resolve(killed)
  await Promise.all([one.heard.closed, two.heard.closed])
  const ownWords = { type: 'error', error: broken.message, status: 'native_failed' }
  assert.deepEqual(one.heard.words, [ownWords])
  assert.deepEqual(two.heard.words, [{ ...exit, exit_code: 137, signal: 9 }])
  await host.call('POST', `/v1/machines/${id}/stop`, {})
  await host.call('GET', `/v1/machines/${id}/wait?state=stopped`)
  three.reject(broken)
  four.resolve(killed)
  for (const { heard } of [three, four]) {
    await heard.closed
    const error = `machine ${id} is stopped, which ended what ran there`
    assert.deepEqual(heard.words, [{ type: 'error', error, status: 'precondition_failed' }])
  }
})

test('an idle machine is not stopped or suspended under a command; whoever says so themselves is obeyed', async (t) => {
  const { host, id } = await running(t)
  const rest = (verb: string) => host.call('POST', `/v1/machines/${id}/${verb}`, {}, asEdge)
  const socket = await open(host, id, { cmd: 'cat' })
  const heard = listenTo(socket)
  for (const verb of ['stop', 'suspend']) {
    await assert.rejects(
      rest(verb),
      (error) => isFault(error, 'conflict') && /runs a command/.test(error.message),
    )
  }
  assert.equal((await host.call('GET', `/v1/machines/${id}`)).state, 'started')
  socket.send('{"type":"eof"}')
  await heard.closed
  const execs = Promise.withResolvers<void>()
  host.driver.onExec = async () => {
    await execs.promise
    return { exitCode: 0, signal: 0, stdout: 'whole', stderr: '', timedOut: false }
  }
  const exec = host.call<{ stdout: string }>('POST', `/v1/machines/${id}/exec`, { cmd: 'job' })
  await eventually('it runs', () => host.agent.execs.any(id))
  await assert.rejects(rest('stop'), (error) => isFault(error, 'conflict'))
  execs.resolve()
  assert.equal((await exec).stdout, 'whole')
  await rest('suspend')
  await host.call('GET', `/v1/machines/${id}/wait?state=suspended`)
  await host.call('POST', `/v1/machines/${id}/start`)
  await host.call('GET', `/v1/machines/${id}/wait?state=started`)
  const last = await open(host, id, { cmd: 'cat' })
  listenTo(last)
  await host.call('POST', `/v1/machines/${id}/stop`, {})
  await host.call('GET', `/v1/machines/${id}/wait?state=stopped`)
})
