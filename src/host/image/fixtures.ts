import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, rmdirSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createLogger, type Logger } from '#sys/log.ts'
import type { TarEntry } from './tar-entry.ts'
import { tarEnd, tarHeader, tarPadding } from './tar-writer.ts'

/** Helpers of this room's tests. */

export function quietLog(): Logger {
  const log = createLogger('image-test')
  log.level = 'silent'
  return log
}

export function temporaryFolder(): { path: string; remove(): void } {
  const path = mkdtempSync(join(tmpdir(), 'hangar-image-'))
  return { path, remove: () => rmSync(path, { recursive: true, force: true }) }
}

/** A tar, by the real tar, of a folder that `make` fills. */
export function tarOfFolder(home: string, make: (folder: string) => void): Buffer {
  const folder = mkdtempSync(join(home, 'tree-'))
  make(folder)
  return execFileSync(
    'tar',
    [
      '--format=pax',
      '--xattrs',
      '--xattrs-include=*',
      '--sort=name',
      '-C',
      folder,
      '-cf',
      '-',
      '.',
    ],
    { maxBuffer: 1 << 28 },
  )
}

export type EntryInput = Partial<TarEntry> & { path: string; content?: string }

/** A tar, by our own writer, of entries that no real tar would write. */
export function tarOfEntries(entries: readonly EntryInput[]): Buffer {
  const parts = entries.map(({ content = '', ...entry }) => {
    const size = Buffer.byteLength(content)
    const header = tarHeader({
      type: 'file',
      link: '',
      mode: 0o644,
      uid: 0,
      gid: 0,
      mtime: 1,
      deviceMajor: 0,
      deviceMinor: 0,
      xattrs: undefined,
      ...entry,
      size,
    })
    return Buffer.concat([header, Buffer.from(content), tarPadding(size)])
  })
  return Buffer.concat([...parts, tarEnd])
}

/** Mounts a squashfs for the time of one function. */
export function withMounted<T>(home: string, squashfsPath: string, look: (root: string) => T): T {
  const root = join(home, `mount-${process.hrtime.bigint()}`)
  mkdirSync(root)
  execFileSync('mount', ['-t', 'squashfs', '-o', 'loop,ro', squashfsPath, root])
  try {
    return look(root)
  } finally {
    execFileSync('umount', [root])
    rmdirSync(root)
  }
}
