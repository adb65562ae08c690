import { createReadStream } from 'node:fs'
import { open } from 'node:fs/promises'
import type { Readable } from 'node:stream'
import { createGunzip, createZstdDecompress } from 'node:zlib'
import { Fault, isFault, messageOf } from '#core/fault.ts'
import { createTarReader, type TarHandler } from './tar-reader.ts'

const chunkBytes = 256 * 1024

/** What a layer is packed with, told by its first bytes: media types are often wrong. */
async function packingOf(path: string): Promise<'gzip' | 'zstd' | 'none'> {
  const file = await open(path, 'r')
  try {
    const { buffer, bytesRead } = await file.read(Buffer.alloc(4), 0, 4, 0)
    if (bytesRead >= 2 && buffer[0] === 0x1f && buffer[1] === 0x8b) return 'gzip'
    if (bytesRead === 4 && buffer.readUInt32LE(0) === 0xfd2fb528) return 'zstd'
    return 'none'
  } finally {
    await file.close()
  }
}

/** The layer's uncompressed bytes. Errors of the file and of the unpacking both end the stream. */
async function openLayer(path: string): Promise<Readable> {
  const packing = await packingOf(path)
  const file = createReadStream(path, { highWaterMark: chunkBytes })
  if (packing === 'none') return file
  const unpack =
    packing === 'gzip'
      ? createGunzip({ chunkSize: chunkBytes })
      : createZstdDecompress({ chunkSize: chunkBytes })
  file.on('error', (error) => unpack.destroy(error))
  unpack.on('close', () => file.destroy())
  return file.pipe(unpack)
}

/**
 * Reads a layer from its first entry to its last. `pause`, when given, is awaited after every chunk: it is how a slow
 * consumer holds the reader back. Throws Fault `image_unavailable` when the layer is damaged, `too_large` past the limit.
 */
export async function readLayer(options: {
  path: string
  handler: TarHandler
  bytesMax: number
  pause?: () => Promise<void>
}): Promise<number> {
  const reader = createTarReader(options.handler)
  let bytes = 0
  const stream = await openLayer(options.path)
  try {
    for await (const chunk of stream) {
      bytes += (chunk as Buffer).length
      if (bytes > options.bytesMax) {
        throw new Fault(
          'too_large',
          `the image unpacks to more than the limit of ${options.bytesMax} bytes; make it smaller`,
        )
      }
      reader.push(chunk as Buffer)
      await options.pause?.()
    }
    reader.end()
    return bytes
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? ''
    if (isFault(error) || !/^(Z_|ZSTD_|ERR_ZLIB|ERR_ZSTD|ERR_BUFFER)/.test(code)) throw error
    throw new Fault(
      'image_unavailable',
      `a layer cannot be unpacked (${messageOf(error)}); build and push the image again`,
      { cause: error },
    )
  } finally {
    stream.destroy()
  }
}
