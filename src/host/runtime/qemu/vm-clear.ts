import { existsSync } from 'node:fs'
import { systemClock } from '#core/clock.ts'
import { Fault } from '#core/fault.ts'
import { isAlive, signalProcess } from '#sys/process.ts'
import { removeCgroup } from '#sys/cgroup.ts'
import { bootId, discard } from '../machine-folder.ts'
import type { VmRecord } from './vm-folder.ts'
import { leaveNetwork } from './vm-network.ts'
import type { VmPlace } from './vm-place.ts'

const dieTimeoutMs = 10_000

/**
 * Kills a machine's VMM and waits until it is gone, with its cgroup and, where its record is lost, whatever is in that. A
 * Fault (`native_failed`) when it does not die.
 */
export async function killVmm(place: VmPlace, id: string, record?: VmRecord): Promise<void> {
  const vmm = record?.vmm
  if (vmm && record.bootId === bootId) {
    const until = performance.now() + dieTimeoutMs
    signalProcess(vmm, 'SIGKILL')
    for (
      let waitMs = 1;
      isAlive(vmm) && performance.now() < until;
      waitMs = Math.min(20, waitMs * 2)
    ) {
      await systemClock.sleep(waitMs)
    }
  }
  if (!(await removeCgroup(place.cgroups, place.cgroupPath(id)))) {
    throw new Fault('native_failed', `the monitor of machine ${id} does not die`)
  }
}

/**
 * Kills what runs of a machine and removes its network, snapshot and disk, whatever step it had reached; the record and
 * the end stay.
 */
export async function clearVm(
  place: VmPlace,
  id: string,
  options: { keepRoot: boolean },
): Promise<void> {
  const at = place.folder(id)
  const record = place.record(id)
  await killVmm(place, id, record)
  if (record?.hasNic) await leaveNetwork(record.netnsPath)
  if (!existsSync(at.dir)) return
  const gone = [at.snapshot, at.unfinished, at.run, at.exitFile, at.outputFile]
  for (const path of gone) discard(place.folders, path)
  if (!options.keepRoot) discard(place.folders, at.upper)
}
