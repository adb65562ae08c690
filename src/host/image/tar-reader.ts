import { Fault } from '#core/fault.ts'
import { tarBlockBytes, tarPaddingBytes, type TarEntry } from './tar-entry.ts'

/**
 * A streaming tar reader: ustar, GNU long names, PAX. Pushed chunks in, calls out, no copy of file data. It is our own
 * because a layer must survive exactly: modern-tar 0.8.6 decodes PAX values as UTF-8 (which breaks the bytes of
 * security.capability) and drops device numbers.
 */
export interface TarHandler {
  /** True when the entry's data shall come through `data`. */
  entry(entry: TarEntry): boolean
  data(chunk: Buffer): void
  /** All data of the entry has been seen. */
  dataEnd(): void
}

export interface TarReader {
  push(chunk: Buffer): void
  /** The input is at its end: throws when that is in the middle of something. */
  end(): void
}

const metaBytesMax = 1024 * 1024
const typeOfFlag: Record<string, TarEntry['type']> = {
  '0': 'file',
  '\0': 'file',
  '7': 'file',
  '1': 'hardlink',
  '2': 'symlink',
  '3': 'char',
  '4': 'block',
  '5': 'directory',
  '6': 'fifo',
}

function broken(why: string): Fault {
  return new Fault(
    'image_unavailable',
    `a layer is not a usable tar archive: ${why}; build and push the image again`,
  )
}

function textField(block: Buffer, at: number, length: number): string {
  const end = block.indexOf(0, at)
  return block.toString('latin1', at, end === -1 || end > at + length ? at + length : end)
}

/** Octal text, or base-256 when the first bit is set. */
function numberField(block: Buffer, at: number, length: number): number {
  const first = block[at] as number
  if (first & 0x80) {
    if (first & 0x40) return 0 // Negative: only time stamps before 1970 are, and squashfs has none.
    let value = first & 0x3f
    for (let i = 1; i < length; i++) value = value * 256 + (block[at + i] as number)
    if (!Number.isSafeInteger(value)) throw broken('a number in a header is too large')
    return value
  }
  const text = block
    .toString('latin1', at, at + length)
    .replace(/[\0 ]+$/, '')
    .trim()
  if (text === '') return 0
  if (!/^[0-7]+$/.test(text)) throw broken(`"${text}" in a header is not a number`)
  return Number.parseInt(text, 8)
}

function checkSum(block: Buffer): void {
  let unsigned = 0
  let signed = 0
  for (let i = 0; i < tarBlockBytes; i++) {
    const byte = i >= 148 && i < 156 ? 32 : (block[i] as number)
    unsigned += byte
    signed += byte > 127 ? byte - 256 : byte
  }
  const stored = numberField(block, 148, 8)
  if (stored !== unsigned && stored !== signed) throw broken('the checksum of a header is wrong')
}

/** `length key=value\n` records; values are bytes. */
export function parsePaxRecords(body: Buffer): Map<string, string> {
  const records = new Map<string, string>()
  for (let at = 0; at < body.length && body[at] !== 0;) {
    const space = body.indexOf(32, at)
    const length = space === -1 ? Number.NaN : Number(body.toString('latin1', at, space))
    const equals = body.indexOf(61, space)
    const end = at + length
    if (!(length > 0) || end > body.length || equals === -1 || equals >= end) {
      throw broken('an extended header cannot be read')
    }
    records.set(
      body.toString('latin1', space + 1, equals),
      body.toString('latin1', equals + 1, end - 1),
    )
    at = end
  }
  return records
}

function xattrsOf(records: ReadonlyMap<string, string>): Map<string, string> | undefined {
  let xattrs: Map<string, string> | undefined
  for (const [key, value] of records) {
    if (!key.startsWith('SCHILY.xattr.')) continue
    xattrs ??= new Map()
    xattrs.set(key.slice('SCHILY.xattr.'.length), value)
  }
  return xattrs
}

function paxNumber(records: ReadonlyMap<string, string>, key: string): number | undefined {
  const text = records.get(key)
  if (text === undefined) return undefined
  const value = Math.floor(Number(text))
  if (!Number.isSafeInteger(value)) throw broken(`${key}=${text} in an extended header`)
  return Math.max(value, 0)
}

function entryOf(block: Buffer, records: ReadonlyMap<string, string>): TarEntry {
  const flag = String.fromCharCode(block[156] as number)
  for (const key of records.keys()) {
    if (key.startsWith('GNU.sparse.'))
      throw broken('it holds a sparse file; pack it without --sparse')
  }
  if (flag === 'S') throw broken('it holds a sparse file; pack it without --sparse')
  let type = typeOfFlag[flag]
  if (type === undefined) throw broken(`an entry has the unknown type "${flag}"`)
  let path = textField(block, 0, 100)
  if (block.toString('latin1', 257, 263) === 'ustar\0') {
    const prefix = textField(block, 345, 155)
    if (prefix !== '') path = `${prefix}/${path}`
  }
  path = records.get('path') ?? path
  // The oldest archives know a folder only by the slash at the end of its name.
  if (flag === '\0' && path.endsWith('/')) type = 'directory'
  const size = paxNumber(records, 'size') ?? numberField(block, 124, 12)
  return {
    type,
    path,
    link: records.get('linkpath') ?? textField(block, 157, 100),
    mode: numberField(block, 100, 8) & 0o7777,
    uid: paxNumber(records, 'uid') ?? numberField(block, 108, 8),
    gid: paxNumber(records, 'gid') ?? numberField(block, 116, 8),
    mtime: paxNumber(records, 'mtime') ?? numberField(block, 136, 12),
    size: type === 'file' ? size : 0,
    deviceMajor: type === 'char' || type === 'block' ? numberField(block, 329, 8) : 0,
    deviceMinor: type === 'char' || type === 'block' ? numberField(block, 337, 8) : 0,
    xattrs: xattrsOf(records),
  }
}

export function createTarReader(handler: TarHandler): TarReader {
  let state: 'header' | 'meta' | 'data' | 'padding' | 'ended' = 'header'
  const header = Buffer.alloc(tarBlockBytes)
  let headerBytes = 0
  let meta = { flag: '', body: Buffer.alloc(0), have: 0 }
  let remaining = 0
  let padding = 0
  let wanted = false
  let globals = new Map<string, string>()
  let pending = new Map<string, string>()

  function afterData(): void {
    state = padding > 0 ? 'padding' : 'header'
    remaining = padding
  }

  function onMeta(): void {
    const text = () => textField(meta.body, 0, meta.body.length)
    if (meta.flag === 'L') pending.set('path', text())
    else if (meta.flag === 'K') pending.set('linkpath', text())
    else if (meta.flag === 'g') globals = new Map([...globals, ...parsePaxRecords(meta.body)])
    else pending = new Map([...pending, ...parsePaxRecords(meta.body)])
    afterData()
  }

  function onHeader(): void {
    if (header.every((byte) => byte === 0)) {
      state = 'ended'
      return
    }
    checkSum(header)
    const flag = String.fromCharCode(header[156] as number)
    if ('xgLK'.includes(flag)) {
      const size = numberField(header, 124, 12)
      if (size > metaBytesMax) throw broken(`an extended header has ${size} bytes`)
      meta = { flag, body: Buffer.alloc(size), have: 0 }
      padding = tarPaddingBytes(size)
      state = 'meta'
      if (size === 0) onMeta()
      return
    }
    const records = globals.size === 0 ? pending : new Map([...globals, ...pending])
    const entry = entryOf(header, records)
    if (pending.size > 0) pending = new Map()
    wanted = handler.entry(entry)
    remaining = entry.size
    padding = tarPaddingBytes(entry.size)
    state = 'data'
    if (remaining > 0) return
    if (wanted) handler.dataEnd()
    afterData()
  }

  /** Takes what the present state can use of the chunk from `at`; returns how much that was. */
  function take(chunk: Buffer, at: number): number {
    const have = chunk.length - at
    if (state === 'header') {
      const count = Math.min(have, tarBlockBytes - headerBytes)
      chunk.copy(header, headerBytes, at, at + count)
      headerBytes += count
      if (headerBytes === tarBlockBytes) {
        headerBytes = 0
        onHeader()
      }
      return count
    }
    if (state === 'meta') {
      const count = Math.min(have, meta.body.length - meta.have)
      chunk.copy(meta.body, meta.have, at, at + count)
      meta.have += count
      if (meta.have === meta.body.length) onMeta()
      return count
    }
    if (state === 'ended') return have
    const count = Math.min(have, remaining)
    remaining -= count
    if (state === 'data' && wanted) handler.data(chunk.subarray(at, at + count))
    if (remaining === 0 && state === 'data') {
      if (wanted) handler.dataEnd()
      afterData()
    } else if (remaining === 0) {
      state = 'header'
    }
    return count
  }

  return {
    push(chunk) {
      for (let at = 0; at < chunk.length;) at += take(chunk, at)
    },
    end() {
      if (state === 'ended' || (state === 'header' && headerBytes === 0)) return
      // The last padding is missing from some archives; nothing of value is in it.
      if (state !== 'padding') throw broken('it ends in the middle of an entry')
    },
  }
}
