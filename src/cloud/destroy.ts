import { existsSync, rmSync } from 'node:fs'
import { Fault } from '#core/fault.ts'
import { findDaemon } from '#sys/daemon.ts'
import { down } from './down.ts'
import type { Home } from './home.ts'
import { mountsBelow, unmountBelow } from './mounts.ts'
import type { Progress } from './progress.ts'
import { removeGroups, strayMachines } from './strays.ts'
import { readState } from './state.ts'
import { supervisorRecord } from './supervisor.ts'

/**
 * Stops the cloud and removes its folder with everything in it. Refuses a folder that is not a home of ours, and one
 * below which something still runs or is mounted: a removal would reach through the mount.
 */
export async function destroy(options: { home: Home; progress: Progress }): Promise<boolean> {
  const { home, progress } = options
  if (!existsSync(home.dir)) return false
  if (!existsSync(home.marker)) {
    throw new Fault('conflict', `${home.dir} is not a Hangar home; nothing was removed`)
  }
  await down({ home, progress })
  await unmountBelow(home.dir)
  const mounted = mountsBelow(home.dir).filter((point) => point !== home.dir)
  if (mounted.length > 0) {
    throw new Fault(
      'conflict',
      `nothing was removed: ${mounted.join(', ')} cannot be unmounted; find who uses it with: fuser -m ${mounted[0]}`,
    )
  }
  const places = readState(home)?.places ?? []
  const machines = places.flatMap((place) => strayMachines(place))
  if (machines.length > 0 || findDaemon(supervisorRecord(home))) {
    throw new Fault(
      'conflict',
      `nothing was removed: processes still run for ${home.dir} (${machines.join(', ')}); see ${home.data('log')}`,
    )
  }
  for (const place of places) removeGroups(place)
  rmSync(home.dir, { recursive: true, force: true })
  return true
}
