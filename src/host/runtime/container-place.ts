import { existsSync, readdirSync } from 'node:fs'
import { systemClock } from '#core/clock.ts'
import { protocolVersion } from '#host/guest/index.ts'
import { isAlive } from '#sys/process.ts'
import {
  findCgroups,
  isFrozen,
  machinesIn,
  oomKills,
  processesOf,
  type CgroupTree,
} from '#sys/cgroup.ts'
import type { ExitRecord } from './driver.ts'
import {
  bootId,
  machineFolder,
  readRecord,
  runtimeFolders,
  type MachineFolder,
  type MachineRecord,
  type RuntimeFolders,
} from './machine-folder.ts'

/** Where the containers of one host are, and what is true of each: read from files and the kernel, never remembered. */
export class ContainerPlace {
  readonly folders: RuntimeFolders
  readonly cgroups: CgroupTree = findCgroups()
  readonly cgroupParent: string

  constructor(options: { dir: string; hostId: string }) {
    this.folders = runtimeFolders(options.dir)
    this.cgroupParent = `/hangar-${options.hostId}`
  }

  folder(id: string): MachineFolder {
    return machineFolder(this.folders, id)
  }

  cgroupPath(id: string): string {
    return `${this.cgroupParent}/${id}`
  }

  /** Of all that left a trace: a folder, or a group of processes whose folder is gone. */
  ids(): string[] {
    const grouped = machinesIn(this.cgroups, this.cgroupParent)
    return [...new Set([...readdirSync(this.folders.machines), ...grouped])]
  }

  /** Host pids of all processes of a machine. */
  processes(id: string): number[] {
    return processesOf(this.cgroups, this.cgroupPath(id))
  }

  isFrozen(id: string): boolean {
    return isFrozen(this.cgroups, this.cgroupPath(id))
  }

  wasOutOfMemory(id: string): boolean {
    return oomKills(this.cgroups, this.cgroupPath(id)) > 0
  }

  /** The record of a machine that is up: its PID 1 lives, and the command was let go. */
  running(id: string): MachineRecord | undefined {
    const record = this.holding(id)
    return record?.started ? record : undefined
  }

  /** The record of a machine whose PID 1 lives and can be talked to, whether or not the command was let go. */
  holding(id: string): MachineRecord | undefined {
    const at = this.folder(id)
    const record = readRecord(at)
    if (!record?.container || record.bootId !== bootId) return undefined
    if (record.protocol !== protocolVersion || existsSync(at.endFile)) return undefined
    return isAlive(record.container) ? record : undefined
  }

  /** How a machine ended whose PID 1 left no word; undefined when its command was never let go. */
  endOf(record: MachineRecord): ExitRecord | undefined {
    if (!record.started) return undefined
    const oomKilled = record.bootId === bootId && this.wasOutOfMemory(record.id)
    const end = { exitCode: 137, signal: 9, oomKilled, at: systemClock.now() }
    if (record.bootId !== bootId) return { ...end, error: 'the host was restarted' }
    if (record.protocol !== protocolVersion) {
      return { ...end, error: 'it was started by another version of Hangar, and was ended' }
    }
    return { ...end, error: 'PID 1 of the machine was killed' }
  }
}
