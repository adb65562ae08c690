import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import fc from 'fast-check'
import { runOk } from '#sys/process.ts'
import { dialUnix } from './dial.ts'
import {
  encodeFrame,
  encodeMessage,
  frameBytesMax,
  frameDataBytesMax,
  FrameReader,
  frameTypes,
} from './frames.ts'
import {
  decodeExit,
  decodeOutput,
  decodeStreamExit,
  decodeWelcome,
  encodeOpen,
  encodeRun,
  type GuestOpen,
} from './messages.ts'
import {
  buildRoot,
  listenTo,
  plainRun,
  removeRoot,
  repository,
  startBox,
  type Box,
} from './test-support.ts'

/** A small generator with a seed, so that a finding can be had again. */
function chance(seed: number) {
  let state = seed >>> 0 || 1
  const next = () => {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    return state >>> 0
  }
  return { below: (limit: number) => next() % limit, next }
}
type Chance = ReturnType<typeof chance>

const kinds: GuestOpen['kind'][] = ['program', 'copyIn', 'copyOut', 'ps', 'metrics', 'grow', 'sync']

function plainMessage(random: Chance): { type: number; stream: number; data: Buffer } {
  const stream = random.below(6)
  const types = Object.values(frameTypes)
  const number = Buffer.alloc(4)
  number.writeUInt32LE(random.below(4) === 0 ? random.next() : random.below(70_000))
  switch (random.below(8)) {
    case 0:
      return { type: frameTypes.hello, stream: 0, data: Buffer.alloc(18, random.below(3)) }
    case 1: {
      const files = [{ path: '/a/b', content: Buffer.alloc(random.below(50_000)), mode: 0o644 }]
      const vm = {
        volumes: [{ device: '/dev/vdc', path: '/data' }],
        addresses: [{ device: 'eth0', address: 'fdaa::2/112' }],
        routes: [{ device: 'eth0', to: '::/0', via: 'fdaa::1' }],
        sysctls: { a: '1' },
        nowMs: 1,
        entropy: Buffer.alloc(32),
      }
      const run = plainRun(['sh', '-c', 'true'], { env: { A: 'b' }, files, vm, user: 'web:extra' })
      return { type: frameTypes.run, stream: 0, data: encodeRun(run) }
    }
    case 2:
    case 3: {
      const kind = kinds[random.below(kinds.length)] ?? 'program'
      const tty = random.below(3) === 0 ? { tty: { rows: 24, columns: 80 } } : {}
      const open = { kind, argv: ['a', 'b'], env: { A: 'b' }, path: '/x', credit: 5000, ...tty }
      return { type: frameTypes.open, stream, data: encodeOpen(open) }
    }
    case 4:
      return { type: frameTypes.data, stream, data: Buffer.alloc(random.below(70_000), 'x') }
    case 5:
      return { type: types[random.below(types.length)] ?? 0, stream, data: number }
    case 6:
      return {
        type: random.below(256),
        stream: random.next(),
        data: Buffer.alloc(random.below(40)),
      }
    default:
      return { type: frameTypes.credit, stream, data: number }
  }
}

/** Frames with a right sum whose content was changed, and now and then bytes that were changed after all. */
function hostileStream(seed: number, messages: number, without: number[] = []): Buffer {
  const random = chance(seed)
  const parts: Buffer[] = [encodeFrame({ type: frameTypes.hello, data: Buffer.alloc(18) })]
  for (let i = 0; i < messages; i++) {
    const { type, stream, data } = plainMessage(random)
    if (without.includes(type)) continue
    for (let change = random.below(4); change > 0 && data.length > 0; change--) {
      data[random.below(Math.min(data.length, 200))] = random.below(256)
    }
    const short = random.below(6) === 0 ? data.subarray(0, random.below(data.length + 1)) : data
    parts.push(...encodeMessage(type, stream, short))
  }
  const bytes = Buffer.concat(parts)
  if (random.below(2) === 0) {
    for (let i = random.below(20); i > 0; i--) bytes[random.below(bytes.length)] = random.below(256)
  }
  return bytes
}

test('frames come back as they were, cut anywhere, with rubbish between them', () => {
  const shape = {
    type: fc.integer({ min: 0, max: 255 }),
    flags: fc.integer({ min: 0, max: 255 }),
    stream: fc.integer({ min: 0, max: 0xffffffff }),
    data: fc.uint8Array({ maxLength: 300 }).map((bytes) => Buffer.from(bytes)),
  }
  const frame = fc.record(shape, { noNullPrototype: true })
  const rubbish = fc.uint8Array({ maxLength: 40 }).map((bytes) => Buffer.from(bytes))
  fc.assert(
    fc.property(fc.array(fc.tuple(frame, rubbish)), fc.array(fc.nat(500)), (given, cuts) => {
      // What fills up a header or a frame that the rubbish seems to begin.
      const end = Buffer.alloc(frameBytesMax)
      const bytes = Buffer.concat([...given.flatMap(([f, r]) => [r, encodeFrame(f)]), end])
      const reader = new FrameReader()
      const found = []
      for (let at = 0, i = 0; at < bytes.length; i++) {
        const part = bytes.subarray(at, at + 1 + (cuts[i % (cuts.length || 1)] ?? 70_000))
        found.push(...reader.push(part))
        at += part.length
      }
      assert.deepEqual(
        found.map((f) => ({ ...f, data: Buffer.from(f.data) })),
        given.map(([f]) => f),
      )
    }),
  )
})

test('no bytes make the reader or a decoder throw, and it keeps one frame at most', () => {
  fc.assert(
    fc.property(fc.array(fc.uint8Array({ maxLength: 2000 })), fc.integer(), (chunks, seed) => {
      const reader = new FrameReader()
      const hostile = hostileStream(seed, 5)
      let bytes = 0
      let told = 0
      for (const chunk of [...chunks.map((c) => Buffer.from(c)), hostile]) {
        bytes += chunk.length
        for (const { data } of reader.push(chunk)) {
          told += data.length + 16
          for (const decode of [decodeExit, decodeOutput, decodeStreamExit, decodeWelcome])
            decode(data)
        }
      }
      const held = bytes - told - reader.skipped
      assert.ok(held >= 0 && held < frameBytesMax, String(held))
    }),
    { numRuns: 200 },
  )
})

test('a message longer than a frame is many, and a frame too long is refused', () => {
  const frames = encodeMessage(frameTypes.run, 0, Buffer.alloc(2 * frameDataBytesMax + 1))
  assert.deepEqual(
    frames.map((f) => [f.length - 16, f[3]]),
    [
      [frameDataBytesMax, 1],
      [frameDataBytesMax, 1],
      [1, 0],
    ],
  )
  assert.throws(() => encodeFrame({ type: 1, data: Buffer.alloc(frameDataBytesMax + 1) }), /longer/)
})

test('the handlers of PID 1 stand what a host could send, under sanitizers', async () => {
  await runOk(join(repository, 'guest/build'), ['fuzz'])
  const first = Number(process.env['HANGAR_FUZZ_SEED'] ?? 1)
  const rounds = Number(process.env['HANGAR_FUZZ_ROUNDS'] ?? 15)
  for (let seed = first; seed < first + rounds; seed++) {
    const result = spawnSync(join(repository, 'build/guest/fuzz'), {
      input: hostileStream(seed, 120),
      encoding: 'utf8',
      timeout: 120_000,
    })
    assert.equal(
      result.status,
      0,
      `HANGAR_FUZZ_SEED=${seed}: ${result.signal ?? ''} ${result.stderr.slice(0, 4000)}`,
    )
  }
})

let root: string
let box: Box | undefined
before(async () => {
  root = await buildRoot()
})
after(async () => {
  box?.process.kill('SIGKILL')
  await box?.over
  removeRoot(root)
})

test('PID 1 itself outlives rubbish and goes on answering', async () => {
  box = await startBox(root)
  const { guest } = listenTo(box)
  await guest.run(plainRun(['sleep', '600']), 60_000)
  guest.letGo()
  // These would end the machine, as they should.
  const endings = [frameTypes.signal, frameTypes.stop, frameTypes.exitAck]
  for (let seed = 1; seed <= 20; seed++) {
    const channel = await dialUnix(box.socket)
    channel.on('error', () => {}) // It may hang up.
    channel.resume()
    const bytes = hostileStream(seed, 40, endings)
    await new Promise((resolve) =>
      channel.write(seed % 2 === 0 ? bytes : bytes.subarray(7), resolve),
    )
    channel.destroy()
    assert.equal(box.process.exitCode, null)
  }
  guest.reconnect()
  await guest.connected(60_000)
  const result = await guest.exec({
    argv: ['echo', 'well'],
    timeoutMs: 60_000,
    outputBytesMax: 100,
  })
  assert.equal(result.stdout, 'well\n')
  guest.close()
})
