import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { isFault } from '#core/fault.ts'
import { tarOfEntries } from './fixtures.ts'
import type { TarEntry } from './tar-entry.ts'
import { createTarReader, parsePaxRecords } from './tar-reader.ts'
import { tarHeader } from './tar-writer.ts'

interface Seen {
  entry: TarEntry
  data: Buffer
}

function read(tar: Buffer, chunkBytes = tar.length): Seen[] {
  const seen: Seen[] = []
  const reader = createTarReader({
    entry(entry) {
      seen.push({ entry, data: Buffer.alloc(0) })
      return true
    },
    data(chunk) {
      const last = seen.at(-1) as Seen
      last.data = Buffer.concat([last.data, chunk])
    },
    dataEnd() {},
  })
  for (let at = 0; at < tar.length; at += chunkBytes) reader.push(tar.subarray(at, at + chunkBytes))
  reader.end()
  return seen
}

const bytes = (maxLength: number) =>
  fc.string({ unit: 'binary-ascii', minLength: 1, maxLength }).map((s) => s.replaceAll('\0', 'é'))

const entries = fc.array(
  fc.record({
    path: fc.oneof(bytes(90), bytes(400)),
    content: fc.string({ unit: 'binary-ascii', maxLength: 1200 }),
    mode: fc.integer({ min: 0, max: 0o7777 }),
    uid: fc.integer({ min: 0, max: 4_000_000_000 }),
    gid: fc.integer({ min: 0, max: 70_000 }),
    mtime: fc.integer({ min: 0, max: 0xffffffff }),
    xattrs: fc.option(
      fc
        .string({ unit: 'binary-ascii', maxLength: 60 })
        .map((value) => new Map([['security.capability', `${value}\x80\xff\0`]])),
      { nil: undefined },
    ),
  }),
  { maxLength: 5 },
)

test('what the writer writes the reader reads, whatever the chunks', () => {
  fc.assert(
    fc.property(entries, fc.integer({ min: 1, max: 3000 }), (given, chunkBytes) => {
      const seen = read(tarOfEntries(given), chunkBytes)
      assert.deepEqual(
        seen.map(({ entry, data }) => [
          entry.path,
          data.toString('latin1'),
          entry.mode,
          entry.uid,
          entry.mtime,
          entry.xattrs,
        ]),
        given.map((each) => [
          each.path,
          each.content,
          each.mode,
          each.uid,
          each.mtime,
          each.xattrs,
        ]),
      )
    }),
    { numRuns: 60 },
  )
})

test('bytes that are no archive give a Fault and nothing else', () => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 1, maxLength: 2000 }), (noise) => {
      try {
        read(Buffer.from(noise))
      } catch (error) {
        assert.ok(isFault(error, 'image_unavailable'), String(error))
      }
    }),
  )
})

test('an extended header of any damage gives records or a Fault', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary-ascii', maxLength: 60 }), (noise) => {
      try {
        parsePaxRecords(Buffer.from(`12 path=abc\n${noise}`, 'latin1'))
      } catch (error) {
        assert.ok(isFault(error, 'image_unavailable'), String(error))
      }
    }),
  )
})

test('long names of GNU tar and base-256 numbers are understood', () => {
  const plain = {
    type: 'file',
    link: '',
    mode: 0o644,
    uid: 0,
    gid: 0,
    mtime: 1,
    size: 0,
    deviceMajor: 0,
    deviceMinor: 0,
    xattrs: undefined,
  } as const
  const name = `${'long/'.repeat(40)}name`
  const longHeader = tarHeader({ ...plain, path: '././@LongLink', size: name.length + 1 })
  longHeader.write('L', 156)
  const body = Buffer.alloc(512)
  body.write(name)
  const header = tarHeader({ ...plain, path: 'long/…', mtime: 0 })
  header.writeUInt32BE(0x80000000, 108)
  header.writeUInt32BE(3_000_000_000, 112)
  for (const block of [longHeader, header]) {
    block.write('        ', 148)
    const sum = block.reduce((total, byte) => total + byte, 0)
    block.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148)
  }
  const [seen] = read(Buffer.concat([longHeader, body, header, Buffer.alloc(1024)]))
  assert.equal(seen?.entry.path, name)
  assert.equal(seen?.entry.uid, 3_000_000_000)
})

test('a header that was changed after it was written is refused', () => {
  const tar = tarOfEntries([{ path: 'file', content: 'x' }])
  tar.write('F', 0)
  assert.throws(() => read(tar), /checksum/)
})
