import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { systemClock } from '#core/clock.ts'
import { isAlive } from '#sys/process.ts'
import { initPath } from './bundle.ts'
import { findCgroups, oomKills, processesOf, type CgroupTree } from './cgroup.ts'
import type { ExitRecord } from './driver.ts'
import {
  bootId,
  machineFolder,
  readExitCode,
  readRecord,
  runtimeFolders,
  type MachineFolder,
  type MachineRecord,
  type RuntimeFolders,
} from './machine-folder.ts'

/** conmon writes the exit code within moments of the container's end; past this it hangs. */
const lastWriteMs = 5_000

/** Where the containers of one host are, and what is true of each: read from files and the kernel, never remembered. */
export class ContainerPlace {
  readonly folders: RuntimeFolders
  readonly cgroups: CgroupTree = findCgroups()
  readonly cgroupParent: string
  /** When a container was first seen gone with its conmon still there. */
  readonly #goneSince = new Map<string, number>()

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

  /** Host pids of all processes of a machine. */
  processes(id: string): number[] {
    return processesOf(this.cgroups, this.cgroupPath(id))
  }

  /** The record of a machine that is up: supervisor and process live, and the command was let go. */
  running(id: string): MachineRecord | undefined {
    const at = this.folder(id)
    const record = readRecord(at)
    if (!record?.conmon || !record.container || record.bootId !== bootId) return undefined
    if (existsSync(at.endFile) || existsSync(at.exitFile) || !isAlive(record.conmon)) {
      this.#goneSince.delete(id)
      return undefined
    }
    if (isAlive(record.container)) {
      this.#goneSince.delete(id)
      return record.started || isInit(record.container.pid) ? record : undefined
    }
    const since = this.#goneSince.get(id) ?? systemClock.now()
    this.#goneSince.set(id, since)
    return systemClock.now() - since < lastWriteMs ? record : undefined
  }

  /** How a machine that does not run ended; undefined when its command was never let go. */
  endOf(record: MachineRecord): ExitRecord | undefined {
    const at = this.folder(record.id)
    const code = readExitCode(at)
    if (!record.started && code === undefined) return undefined
    const now = systemClock.now()
    if (code === undefined) {
      const error =
        record.bootId === bootId
          ? 'the supervisor of the machine (conmon) was killed'
          : 'the host was restarted'
      return { exitCode: 137, signal: 9, oomKilled: false, at: now, error }
    }
    const oom = oomKills(this.cgroups, this.cgroupPath(record.id)) > 0
    const oomKilled = (oom || existsSync(join(at.persist, 'oom'))) && code !== 0
    const signal = code > 128 && code <= 192 ? code - 128 : undefined
    return { exitCode: code, oomKilled, at: now, ...(signal === undefined ? {} : { signal }) }
  }
}

/** After a crash between the runtime's start and our record of it, the process itself tells. */
function isInit(pid: number): boolean {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').startsWith(`${initPath}\0`)
  } catch {
    return false
  }
}
