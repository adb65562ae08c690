/** One file of an initramfs. A folder has no content; a character device has its numbers. */
export interface CpioEntry {
  /** Without a leading slash. */
  path: string
  mode: number
  content?: Buffer
  device?: { major: number; minor: number }
}

export const folderMode = 0o040755
export const programMode = 0o100755
export const fileMode = 0o100644
export const characterDeviceMode = 0o020600

const hex = (value: number) => value.toString(16).toUpperCase().padStart(8, '0')
const padTo4 = (length: number) => Buffer.alloc((4 - (length % 4)) % 4)

function entryBytes(entry: CpioEntry, inode: number): Buffer[] {
  const name = Buffer.from(`${entry.path}\0`)
  const content = entry.content ?? Buffer.alloc(0)
  const numbers = [inode, entry.mode, 0, 0, 1, 0, content.length, 0, 0]
  numbers.push(entry.device?.major ?? 0, entry.device?.minor ?? 0, name.length, 0)
  const head = Buffer.from(`070701${numbers.map(hex).join('')}`)
  return [head, name, padTo4(head.length + name.length), content, padTo4(content.length)]
}

/** A cpio archive in the format that the kernel unpacks ("newc"); everything belongs to root, and to 1970. */
export function cpio(entries: readonly CpioEntry[]): Buffer {
  const parts = entries.flatMap((entry, i) => entryBytes(entry, i + 1))
  return Buffer.concat([...parts, ...entryBytes({ path: 'TRAILER!!!', mode: 0 }, 0)])
}

export interface InitramfsParts {
  /** PID 1. */
  init: Buffer
  /** In the order in which they are to be loaded. */
  modules: { name: string; content: Buffer }[]
}

/** PID 1 and the modules it loads; not compressed, because unpacking costs an emulated processor more than reading. */
export function initramfs(parts: InitramfsParts): Buffer {
  const modules = parts.modules.map(({ name, content }, i) => ({
    path: `modules/${String(i).padStart(3, '0')}-${name}.ko`,
    mode: fileMode,
    content,
  }))
  return cpio([
    ...['dev', 'proc', 'sys', 'modules'].map((path) => ({ path, mode: folderMode })),
    { path: 'dev/console', mode: characterDeviceMode, device: { major: 5, minor: 1 } },
    { path: 'init', mode: programMode, content: parts.init },
    ...modules,
  ])
}
