import { rmSync, writeFileSync } from 'node:fs'
import { zstdDecompressSync } from 'node:zlib'
import { writeFileAtomic } from '#sys/files.ts'
import { runOk } from '#sys/process.ts'

const headerMagic = 0x53726448 // "HdrS"
/** The boot protocol that first told where the payload is. */
const payloadSince = 0x0208
/** The kernel's build appends the size of what is packed. */
const sizeBytes = 4

/** The packed kernel inside an x86 bzImage, or undefined for something else. */
export function payloadOf(image: Buffer): Buffer | undefined {
  if (image.length < 0x250 || image.readUInt32LE(0x202) !== headerMagic) return undefined
  if (image.readUInt16LE(0x206) < payloadSince) return undefined
  const at = (image.readUInt8(0x1f1) + 1) * 512 + image.readUInt32LE(0x248)
  const length = image.readUInt32LE(0x24c)
  if (length <= sizeBytes || at + length > image.length) return undefined
  return image.subarray(at, at + length - sizeBytes)
}

/**
 * Writes the kernel's ELF to `path`: Firecracker takes nothing else, and QEMU starts it in half the time, because an
 * emulated processor need not unpack it. False for a packing that is not Debian's.
 */
export async function unpackKernel(image: Buffer, path: string): Promise<boolean> {
  const payload = payloadOf(image)
  if (payload === undefined) return false
  const isXz = payload.subarray(0, 6).equals(Buffer.from('fd377a585a00', 'hex'))
  const isZstd = payload.length > 4 && payload.readUInt32LE(0) === 0xfd2fb528
  if (isZstd) writeFileAtomic(path, zstdDecompressSync(payload))
  if (!isXz) return isZstd
  rmSync(path, { force: true })
  writeFileSync(`${path}.xz`, payload)
  await runOk('xz', ['--decompress', '--single-stream', `${path}.xz`])
  return true
}
