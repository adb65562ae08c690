import type { Readable } from 'node:stream'

/** Reads a stream to its end and keeps the first `bytesMax` bytes. */
export function collect(
  stream: Readable,
  bytesMax: number,
): { text(): string; ended: Promise<void> } {
  const chunks: Buffer[] = []
  let size = 0
  const ended = new Promise<void>((resolve) => {
    stream.on('data', (chunk: Buffer) => {
      if (size < bytesMax) chunks.push(chunk.subarray(0, bytesMax - size))
      size += chunk.length
    })
    stream.once('end', resolve)
    stream.once('close', resolve)
  })
  return { ended, text: () => Buffer.concat(chunks).toString('utf8') }
}
