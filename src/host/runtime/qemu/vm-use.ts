import { stat } from 'node:fs/promises'
import type { DiskUsage, MachineStats } from '../driver.ts'
import type { VmPlace } from './vm-place.ts'
import type { VmSessions } from './vm-sessions.ts'
import { readManifest } from './vm-snapshot.ts'

/** A guest that is busy is not waited for. */
const askTimeoutMs = 2_000

interface Asked {
  place: VmPlace
  sessions: VmSessions
}

/** Undefined for a machine that neither runs nor is suspended. */
export async function statsOf(asked: Asked, id: string): Promise<MachineStats | undefined> {
  const { place } = asked
  const record = place.record(id)
  const state = place.state(id)
  if (!record || (state !== 'running' && state !== 'suspended')) return undefined
  const memoryMaxBytes = record.memoryMb * 1024 * 1024
  if (state === 'suspended') {
    const cpuUsec = readManifest(place.folder(id))?.cpuUsec ?? record.cpuUsecBefore
    return { cpuUsec, memoryBytes: 0, memoryMaxBytes, processes: 0 }
  }
  const cpuUsec = place.cpuUsec(record)
  // A guest that says nothing has all its memory.
  const inside = await insideOf(asked, id).catch(() => ({
    memoryBytes: memoryMaxBytes,
    processes: 0,
  }))
  return { cpuUsec, memoryMaxBytes, ...inside }
}

async function insideOf({ sessions }: Asked, id: string) {
  const { guest } = await sessions.connected(id, askTimeoutMs)
  const said = await guest.stats()
  const memoryBytes = said.memoryTotalBytes - said.memoryAvailableBytes
  return { memoryBytes, processes: said.processes }
}

/** Undefined when the machine does not run with this disk, or what its guest says cannot be of it. A Fault when it says nothing. */
export async function usageOf(
  { place, sessions }: Asked,
  id: string,
  source: string,
): Promise<DiskUsage | undefined> {
  const volume = place.record(id)?.volumes.find((each) => each.source === source)
  if (!volume || place.state(id) !== 'running') return undefined
  const { guest } = await sessions.connected(id, askTimeoutMs)
  const { volume: found } = await guest.stats({ path: volume.path, timeoutMs: askTimeoutMs })
  return found && isUsageOf((await stat(source)).size, found) ? found : undefined
}

/** A guest may say anything of a disk of so many bytes. */
function isUsageOf(bytes: number, { blockBytes, blocks, blocksFree, blocksAvailable }: DiskUsage) {
  return blockBytes * blocks <= bytes && blocksAvailable <= blocksFree && blocksFree <= blocks
}
