import { within } from '#sys/abort.ts'
import { Fault, messageOf } from '#core/fault.ts'
import type { Logger } from '#sys/log.ts'
import { discard } from '../machine-folder.ts'
import { Qmp } from './qmp.ts'
import { killVmm } from './vm-clear.ts'
import { flushGuest } from './vm-flush.ts'
import type { VmRecord } from './vm-folder.ts'
import { socketPath } from './vm-launch.ts'
import type { VmPlace } from './vm-place.ts'
import type { VmSessions } from './vm-sessions.ts'
import { goOn, saveSnapshot } from './vm-snapshot.ts'

export interface VmSuspend {
  place: VmPlace
  sessions: VmSessions
  record: VmRecord
  log: Logger
  /** Gives the suspend up: the machine goes on, unless its monitor is dead or deaf. */
  signal: AbortSignal
}

/** 2 GB at the pace of a slow disk. */
const suspendTimeoutMs = 120_000
const controlTimeoutMs = 5_000
const hangUpTimeoutMs = 1_000
const closeTimeoutMs = 5_000
/** For a monitor that does not answer to let its machine go on. */
const goOnTimeoutMs = 5_000

/**
 * From running to a snapshot that counts, with no VMM beside it. A Fault (`native_failed`) when that came to nothing: no
 * snapshot is left, and the VM goes on if its VMM can let it.
 */
export async function suspendVm(suspend: VmSuspend): Promise<void> {
  const { place, sessions, record } = suspend
  const { id } = record
  const reason = () =>
    new Fault('timeout', `it took longer than ${suspendTimeoutMs / 1000} s; try again`)
  const opening = Qmp.open(socketPath(record.vmm?.pid ?? 0, 'qmp'), controlTimeoutMs)
  let qmp: Qmp | undefined
  try {
    const steps = async (signal: AbortSignal) => {
      qmp = await opening
      signal.throwIfAborted()
      // A snapshot may be lost, and with it what is only in its memory (MCH-42); volumes first, for what does not know `/`.
      const paths = [...record.volumes.map(({ path }) => path), '/']
      await flushGuest(sessions, { id, paths, log: suspend.log })
      signal.throwIfAborted()
      const session = await sessions.open(id)
      await session?.guest.hangUpApi(hangUpTimeoutMs)
      signal.throwIfAborted()
      // A guest is saved with its port open, and finds it so: what it would do of a port that closed takes time at both ends.
      session?.setAsleep(true)
      await qmp.execute('stop')
      await saveSnapshot(place, record, { qmp, signal })
    }
    await within({ ms: suspendTimeoutMs, reason, others: [suspend.signal] }, steps)
  } catch (error) {
    await undo(suspend, qmp)
    throw new Fault('native_failed', `machine ${id} was not suspended: ${messageOf(error)}`)
  } finally {
    // Also one that opens after it was given up: QEMU speaks with one at a time.
    opening.then((open) => open.close()).catch(() => {})
  }
  await killVmm(place, record.id, record)
  const late = () => new Fault('timeout', 'its log takes nothing')
  // Nobody speaks there any more.
  await within({ ms: closeTimeoutMs, reason: late }, () => sessions.close(id)).catch(() => {})
}

async function undo({ place, sessions, record }: VmSuspend, qmp: Qmp | undefined): Promise<void> {
  const at = place.folder(record.id)
  // Nothing that a later resume could take for the state of a VM that went on.
  for (const path of [at.unfinished, at.snapshot]) discard(place.folders, path)
  if (!place.vmmLives(record)) return
  const reason = () => new Fault('timeout', 'the VMM is deaf')
  // Its owner ends what stands still.
  if (qmp) await within({ ms: goOnTimeoutMs, reason }, () => goOn(qmp)).catch(() => {})
  if (!place.vmmLives(record)) return
  const session = await sessions.open(record.id)
  session?.setAsleep(false)
  session?.tellTime(controlTimeoutMs).catch(() => {}) // One that is deaf has no use for it.
}
