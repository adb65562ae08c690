import { open } from 'node:fs/promises'

/** What an ext4 says of itself, whoever wrote that. */
export interface Superblock {
  /** As large as the file system is. */
  bytes: number
  /** It was unmounted, and no error was ever found in it: there is nothing to mend. */
  isClean: boolean
}

const block = { at: 1024, bytes: 1024 }
const fields = {
  blocksLow: 0x04,
  blockSizeLog: 0x18,
  magic: 0x38,
  state: 0x3a,
  incompatible: 0x60,
  blocksHigh: 0x150,
  errors: 0x194,
}
const magic = 0xef53
const unmounted = 1
const needsRecovery = 4

export async function readSuperblock(disk: string): Promise<Superblock> {
  const file = await open(disk)
  try {
    const read = Buffer.alloc(block.bytes)
    await file.read(read, 0, block.bytes, block.at)
    const blocks =
      read.readUInt32LE(fields.blocksHigh) * 2 ** 32 + read.readUInt32LE(fields.blocksLow)
    return {
      bytes: blocks * 1024 * 2 ** (read.readUInt32LE(fields.blockSizeLog) & 0xf),
      isClean:
        read.readUInt16LE(fields.magic) === magic &&
        read.readUInt16LE(fields.state) === unmounted &&
        (read.readUInt32LE(fields.incompatible) & needsRecovery) === 0 &&
        read.readUInt32LE(fields.errors) === 0,
    }
  } finally {
    await file.close()
  }
}
