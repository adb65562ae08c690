import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { open, stat } from 'node:fs/promises'
import { Fault } from '#core/fault.ts'
import type { Descriptor } from './manifest.ts'

/**
 * Streams a blob into a file and checks size and digest on the way. What an earlier, broken attempt left in the file is
 * continued with a range request; a registry that ignores the range starts again from the first byte.
 *
 * Throws Fault `image_unavailable` for wrong bytes (the file is emptied), AbortError when cancelled, anything else for a
 * lost connection.
 */
export async function downloadBlob(options: {
  descriptor: Descriptor
  path: string
  idleMs: number
  cancelled: AbortSignal
  open: (headers: Record<string, string>, signal: AbortSignal) => Promise<Response>
}): Promise<void> {
  const { descriptor, path, idleMs } = options
  const abort = new AbortController()
  const giveUp = () =>
    abort.abort(new Error(`no byte of blob ${descriptor.digest} came for ${idleMs} ms`))
  const idle = setTimeout(giveUp, idleMs)
  let hash = createHash('sha256')
  let offset = await sizeOf(path)
  if (offset > 0 && offset < descriptor.size) {
    for await (const chunk of createReadStream(path)) hash.update(chunk as Buffer)
  } else {
    offset = 0
  }
  const file = await open(path, offset > 0 ? 'r+' : 'w')
  try {
    const range: Record<string, string> = offset > 0 ? { range: `bytes=${offset}-` } : {}
    // A compressed transfer would be unpacked by fetch and no longer be the bytes that the digest names.
    const signal = AbortSignal.any([abort.signal, options.cancelled])
    const response = await options.open({ 'accept-encoding': 'identity', ...range }, signal)
    if (offset > 0 && response.status !== 206) {
      offset = 0
      hash = createHash('sha256')
    }
    for await (const chunk of response.body ?? []) {
      idle.refresh()
      if (offset + chunk.length > descriptor.size) break
      hash.update(chunk)
      await file.write(chunk, 0, chunk.length, offset)
      offset += chunk.length
    }
    if (offset < descriptor.size && response.body) await response.body.cancel().catch(() => {})
    const digest = `sha256:${hash.digest('hex')}`
    if (offset === descriptor.size && digest === descriptor.digest) return
    await file.truncate(0)
    throw new Fault(
      'image_unavailable',
      `sent wrong bytes for blob ${descriptor.digest} (${offset} of ${descriptor.size} bytes, ${digest})`,
    )
  } finally {
    clearTimeout(idle)
    await file.close()
  }
}

async function sizeOf(path: string): Promise<number> {
  try {
    return (await stat(path)).size
  } catch {
    return 0
  }
}
