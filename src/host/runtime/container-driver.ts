import { Fault } from '#core/fault.ts'
import type { Logger } from '#sys/log.ts'
import type { Driver } from './driver.ts'

export interface ContainerDriverOptions {
  /** Records, overlays and mounts of this host's machines. */
  dir: string
  /** Names the cgroup parent: two hosts on one kernel do not meet. */
  hostId: string
  log: Logger
}

/** Machines as containers: crun or runc under conmon. A weaker wall than a VM: all machines share the host's kernel. */
export function openContainerDriver(options: ContainerDriverOptions): Driver {
  throw new Fault('not_available_yet', `the container driver of ${options.hostId} is being written`)
}
