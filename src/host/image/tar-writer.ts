import { tarBlockBytes, tarPaddingBytes, type TarEntry } from './tar-entry.ts'

const flagOfType: Record<TarEntry['type'], string> = {
  file: '0',
  hardlink: '1',
  symlink: '2',
  char: '3',
  block: '4',
  directory: '5',
  fifo: '6',
}

/** The two zero blocks that end an archive. */
export const tarEnd: Buffer = Buffer.alloc(2 * tarBlockBytes)

/** The largest numbers that the octal fields of a header hold. */
const idMax = 0o7777777
const sizeMax = 0o77777777777

function paxRecord(key: string, value: string): string {
  const rest = ` ${key}=${value}\n`
  // The length counts its own digits.
  let length = rest.length + String(rest.length).length
  if (String(length).length !== String(rest.length).length)
    length = rest.length + String(length).length
  return `${length}${rest}`
}

function octal(block: Buffer, value: number, at: number, length: number): void {
  block.write(value.toString(8).padStart(length - 1, '0'), at, length - 1, 'latin1')
}

function headerBlock(entry: TarEntry, flag: string): Buffer {
  const block = Buffer.alloc(tarBlockBytes)
  block.write(entry.path.slice(0, 100), 0, 100, 'latin1')
  octal(block, entry.mode & 0o7777, 100, 8)
  octal(block, Math.min(entry.uid, idMax), 108, 8)
  octal(block, Math.min(entry.gid, idMax), 116, 8)
  octal(block, Math.min(entry.size, sizeMax), 124, 12)
  octal(block, Math.min(entry.mtime, sizeMax), 136, 12)
  block.write('        ', 148, 8, 'latin1')
  block.write(flag, 156, 1, 'latin1')
  block.write(entry.link.slice(0, 100), 157, 100, 'latin1')
  block.write('ustar\x0000', 257, 8, 'latin1')
  octal(block, entry.deviceMajor, 329, 8)
  octal(block, entry.deviceMinor, 337, 8)
  let sum = 0
  for (const byte of block) sum += byte
  block.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 8, 'latin1')
  return block
}

/** Everything that comes before an entry's data: its header, preceded by a PAX header when the plain one is too small. */
export function tarHeader(entry: TarEntry): Buffer {
  let records = ''
  if (entry.path.length > 100) records += paxRecord('path', entry.path)
  if (entry.link.length > 100) records += paxRecord('linkpath', entry.link)
  if (entry.uid > idMax) records += paxRecord('uid', String(entry.uid))
  if (entry.gid > idMax) records += paxRecord('gid', String(entry.gid))
  if (entry.size > sizeMax) records += paxRecord('size', String(entry.size))
  for (const [name, value] of entry.xattrs ?? [])
    records += paxRecord(`SCHILY.xattr.${name}`, value)
  const block = headerBlock(entry, flagOfType[entry.type])
  if (records === '') return block
  const body = Buffer.from(records, 'latin1')
  const pax = headerBlock(
    {
      type: 'file',
      path: 'PaxHeaders/0',
      link: '',
      mode: 0o644,
      uid: 0,
      gid: 0,
      mtime: 0,
      size: body.length,
      deviceMajor: 0,
      deviceMinor: 0,
      xattrs: undefined,
    },
    'x',
  )
  return Buffer.concat([pax, body, tarPadding(body.length), block])
}

const zeros = Buffer.alloc(tarBlockBytes)
/** What fills the last block after `size` bytes of data. */
export const tarPadding = (size: number): Buffer => zeros.subarray(0, tarPaddingBytes(size))
