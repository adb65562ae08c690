import { existsSync } from 'node:fs'
import { systemClock } from '#core/clock.ts'
import { Fault } from '#core/fault.ts'
import { processStartTime, signalProcess } from '#sys/process.ts'
import { removeCgroup } from '#sys/cgroup.ts'
import type { ContainerPlace } from './container-place.ts'
import { bootId, discard, readRecord, removeState, type MachineFolder } from './machine-folder.ts'
import { unmount } from './mounts.ts'
import { processesNaming } from './processes.ts'

/**
 * Kills what runs of a machine and removes its mounts, its cgroup and the runtime's state, whatever step its start had
 * reached; the record and the end stay, with `keepRoot` what it wrote to its root too. A Fault (`native_failed`) when the kernel does not let go.
 */
export async function clearContainer(
  place: ContainerPlace,
  id: string,
  options: { keepRoot: boolean },
): Promise<void> {
  const at = place.folder(id)
  const record = readRecord(at)
  if (!record && !existsSync(at.dir)) {
    // What runs without its record is nobody's, and no file of it is to be found.
    await removeCgroup(place.cgroups, place.cgroupPath(id))
    removeState(place.folders, id)
    return
  }
  const thisBoot = record?.bootId === bootId
  if (!record?.started) await killStarters(at)
  if (!(await removeCgroup(place.cgroups, place.cgroupPath(id)))) {
    throw new Fault('native_failed', `the processes of machine ${id} do not die`)
  }
  if (thisBoot && record?.container) signalProcess(record.container, 'SIGKILL')
  await unmount(at.root)
  removeState(place.folders, id)
  // The work folder is the kernel's own: it says that an overlay without syncs was here, and may not be used again.
  for (const path of [at.work, at.bundle]) discard(place.folders, path)
  if (!options.keepRoot) discard(place.folders, at.upper)
}

/** A start that was cut short may have left a runtime still at work. */
async function killStarters(at: MachineFolder): Promise<void> {
  for (let round = 0; round < 100; round++) {
    const starters = processesNaming(at.bundle)
    if (starters.length === 0) return
    for (const pid of starters) {
      const startTime = processStartTime(pid)
      if (startTime !== undefined) signalProcess({ pid, startTime }, 'SIGKILL')
    }
    await systemClock.sleep(5)
  }
}
