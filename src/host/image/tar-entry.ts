/** What a tar archive says about one thing. Texts are byte strings (latin1): names need not be UTF-8. */
export interface TarEntry {
  type: 'file' | 'hardlink' | 'symlink' | 'char' | 'block' | 'directory' | 'fifo'
  path: string
  /** Target of a hard link or symbolic link. */
  link: string
  mode: number
  uid: number
  gid: number
  /** Seconds. */
  mtime: number
  /** Bytes of data that follow; 0 for all but files. */
  size: number
  deviceMajor: number
  deviceMinor: number
  /** Name → value as a byte string; most entries have none. */
  xattrs: ReadonlyMap<string, string> | undefined
}

export const tarBlockBytes = 512

/** Zero bytes that bring `size` up to a whole block. */
export const tarPaddingBytes = (size: number): number =>
  (tarBlockBytes - (size % tarBlockBytes)) % tarBlockBytes
