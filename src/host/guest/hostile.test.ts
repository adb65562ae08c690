import assert from 'node:assert/strict'
import { Duplex } from 'node:stream'
import { text } from 'node:stream/consumers'
import { test } from 'node:test'
import { eventually } from '#sys/test-support.ts'
import { encodeFrame, frameHeaderBytes, frameTypes } from './frames.ts'
import { Guest } from './guest.ts'

/** The end of a channel that a guest of the worst kind holds: it greets, says `words`, and takes nothing after that. */
function hostileGuest(words: readonly Buffer[]): Duplex {
  const channel = new Duplex({
    read() {},
    write(hello: Buffer, _encoding, done) {
      if (hello[2] !== frameTypes.hello) return // Never taken.
      const data = Buffer.alloc(55)
      data.writeUInt16LE(1, 0)
      hello.copy(data, 2, frameHeaderBytes + 2, frameHeaderBytes + 10)
      data[26] = 1
      this.push(encodeFrame({ type: frameTypes.welcome, data }))
      for (const word of words) this.push(word)
      done()
    },
  })
  return channel
}

function listen(words: readonly Buffer[], onOutput?: () => Promise<void>) {
  const lost: string[] = []
  const notes: string[] = []
  let dials = 0
  const guest = new Guest({
    name: 'hostile',
    dial: async () => {
      dials++
      return hostileGuest(words)
    },
    padded: false,
    onLost: (why) => void lost.push(why),
    onNote: (said) => void notes.push(said),
    ...(onOutput ? { onOutput } : {}),
  })
  const until = (met: () => boolean) => eventually('it came true', met)
  return { guest, lost, notes, until, dials: () => dials }
}

test('a guest that asks for answers and takes none is let go before it fills our memory', async () => {
  const ask = encodeFrame({ type: frameTypes.apiOpen, stream: 5 })
  const host = listen(Array.from({ length: 5_000 }, () => ask))
  await host.until(() => host.lost.length > 0)
  host.guest.close()
  assert.match(host.lost[0] ?? '', /takes nothing/)
})

test('a guest has so many words an hour, however often it breaks the connection or skips output', async () => {
  const note = encodeFrame({ type: frameTypes.note, data: Buffer.from('hello') })
  const gaps = Array.from({ length: 300 }, (_, i) => {
    const data = Buffer.alloc(18)
    data.writeBigUInt64LE(BigInt(i + 1) * 1_000n)
    return encodeFrame({ type: frameTypes.output, data })
  })
  const host = listen([...Array.from({ length: 150 }, () => note), ...gaps])
  await host.until(() => host.guest.ready)
  for (let i = 2; i <= 3; i++) {
    host.guest.letGo()
    await host.until(() => !host.guest.ready)
    host.guest.reconnect()
    await host.until(() => host.dials() === i && host.guest.ready)
  }
  host.guest.close()
  assert.equal(host.notes.length, 200)
})

test('output without bytes counts: a disk that hangs does not make it pile up', async () => {
  const empty = encodeFrame({ type: frameTypes.output, data: Buffer.alloc(17) })
  const first = encodeFrame({ type: frameTypes.output, data: Buffer.alloc(18) })
  const stuck = Promise.withResolvers<void>()
  const host = listen([first, ...Array.from({ length: 40_000 }, () => empty)], () => stuck.promise)
  await host.until(() => host.lost.length > 0)
  host.guest.close()
  stuck.resolve()
  assert.match(host.lost[0] ?? '', /more output than it may/)
})

test('a guest that answers no question keeps nobody waiting', async () => {
  const host = listen([])
  await host.until(() => host.guest.ready)
  const limits = { timeoutMs: 50, outputBytesMax: 100 }
  await Promise.all([
    assert.rejects(host.guest.copyIn('/a', Buffer.from('b'), limits), /was given up/),
    assert.rejects(host.guest.exec({ argv: ['true'], ...limits }), /was given up/),
    assert.rejects(text(host.guest.copyOut('/a', limits)), /was given up/),
  ])
  host.guest.close()
})
