import { readFileSync } from 'node:fs'
import { systemClock } from '#core/clock.ts'
import { messageOf } from '#core/fault.ts'
import type { Logger } from '#sys/log.ts'
import type { Admin } from '../proxy/admin.ts'
import { ensureLeaf, type LeafOptions } from './leaf.ts'

const everyMs = 12 * 3_600_000

/** Looks twice a day whether the leaf is due, and gives HAProxy a new one without a reload. */
export function startRenewal(options: { leaf: LeafOptions; admin: Admin; log: Logger }): {
  close(): void
} {
  const { leaf, admin, log } = options
  const stop = new AbortController()
  void (async () => {
    while (!stop.signal.aborted) {
      await systemClock.sleep(everyMs, stop.signal).catch(() => {})
      if (stop.signal.aborted) return
      try {
        if (await ensureLeaf(leaf)) await loadLeaf(admin, leaf.leafFile)
      } catch (error) {
        log.error(
          { error: messageOf(error) },
          'the certificate was not renewed; trying again later',
        )
      }
    }
  })()
  return { close: () => stop.abort() }
}

/** Puts the file's certificate into effect in a running HAProxy. */
export async function loadLeaf(admin: Admin, file: string): Promise<void> {
  await admin.runWithPayload(`set ssl cert ${file}`, readFileSync(file, 'utf8'))
  const [answer = ''] = await admin.run([`commit ssl cert ${file}`])
  if (!answer.includes('Success')) {
    await admin.run([`abort ssl cert ${file}`])
    throw new Error(`HAProxy did not take the certificate: ${answer.trim()}`)
  }
}
