import { messageOf } from '#core/fault.ts'
import { limits } from '#core/limits.ts'
import type { Logger } from '#sys/log.ts'
import type { VmSessions } from './vm-sessions.ts'

/**
 * What the guest has written is on its disks: at `paths`, where its volumes are, and with `/` on its root. Without its
 * answer they are as a power cut would leave them, which is only said: it keeps nobody waiting for longer than
 * `limits.volumeSyncMsMax`.
 */
export async function flushGuest(
  sessions: VmSessions,
  { id, paths, log }: { id: string; paths: readonly string[]; log: Logger },
): Promise<void> {
  const until = performance.now() + limits.volumeSyncMsMax
  const leftMs = () => Math.max(1, Math.round(until - performance.now()))
  try {
    const session = await sessions.open(id)
    await session?.guest.connected(leftMs())
    for (const path of paths) await session?.guest.sync(path, leftMs())
  } catch (error) {
    log.warn(
      { id, error: messageOf(error) },
      'a guest did not flush its disks: they lack what it had only in its memory',
    )
  }
}
