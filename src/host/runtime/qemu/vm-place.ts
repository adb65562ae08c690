import { createHash } from 'node:crypto'
import { existsSync, readdirSync } from 'node:fs'
import { systemClock } from '#core/clock.ts'
import { Fault } from '#core/fault.ts'
import { tailOfFile } from '#sys/files.ts'
import { isAlive } from '#sys/process.ts'
import { findCgroups, machinesIn, oomKills, useOf, type CgroupTree } from '#sys/cgroup.ts'
import type { ExitRecord } from '../driver.ts'
import { bootId, readEnd } from '../machine-folder.ts'
import {
  readGuestExit,
  readVmRecord,
  vmFolder,
  vmFolders,
  type VmFolder,
  type VmFolders,
  type VmRecord,
} from './vm-folder.ts'

/**
 * What is true of a VM. `begun`: a start under way or cut short. `suspended`: a snapshot that counts, whatever else is
 * there. `over`: ended, and not written down yet.
 */
export type VmState = 'none' | 'begun' | 'running' | 'suspended' | 'over' | 'ended'

/** Users of VMMs, by host: no process of the system's own has such a number. */
const uidFirst = 1_879_048_192
const uidsPerHost = 4_096
const hostRanges = 16_384

/** Where the VMs of one host are, and what is true of each: read from files and the kernel, never remembered. */
export class VmPlace {
  readonly folders: VmFolders
  readonly cgroups: CgroupTree = findCgroups()
  readonly cgroupParent: string
  readonly #uidFirst: number
  /** Of starts that have no record yet. */
  readonly #uidsTaken = new Map<string, number>()

  constructor(options: { dir: string; hostId: string }) {
    this.folders = vmFolders(options.dir)
    this.cgroupParent = `/hangar-${options.hostId}-vm`
    const hash = createHash('sha256').update(options.hostId).digest().readUInt32BE(0)
    this.#uidFirst = uidFirst + (hash % hostRanges) * uidsPerHost
  }

  folder(id: string): VmFolder {
    return vmFolder(this.folders, id)
  }

  record(id: string): VmRecord | undefined {
    return readVmRecord(this.folder(id))
  }

  cgroupPath(id: string): string {
    return `${this.cgroupParent}/${id}`
  }

  /** Of all that left a trace: a folder, or a group of a VMM whose folder is gone. */
  ids(): string[] {
    const grouped = machinesIn(this.cgroups, this.cgroupParent)
    return [...new Set([...readdirSync(this.folders.machines), ...grouped])]
  }

  /** A number of its own for each machine's VMM, as small as possible. */
  takeUid(id: string): number {
    const taken = new Set(this.#uidsTaken.values())
    for (const other of this.ids()) {
      const uid = other === id ? undefined : this.record(other)?.uid
      if (uid !== undefined) taken.add(uid)
    }
    for (let uid = this.#uidFirst; uid < this.#uidFirst + uidsPerHost; uid++) {
      if (taken.has(uid)) continue
      this.#uidsTaken.set(id, uid)
      return uid
    }
    throw new Fault('limit_reached', `this host has no more users for VMs than ${uidsPerHost}`)
  }

  releaseUid(id: string): void {
    this.#uidsTaken.delete(id)
  }

  state(id: string): VmState {
    const at = this.folder(id)
    if (existsSync(at.endFile)) return 'ended'
    if (existsSync(at.manifestFile)) return 'suspended'
    const record = readVmRecord(at)
    if (!record) return 'none'
    if (!record.started) return 'begun'
    return !existsSync(at.exitFile) && this.vmmLives(record) ? 'running' : 'over'
  }

  vmmLives(record: VmRecord): boolean {
    return record.bootId === bootId && record.vmm !== undefined && isAlive(record.vmm)
  }

  /** Processor time of the machine since its start, over all its VMMs. */
  cpuUsec(record: VmRecord): number {
    return record.cpuUsecBefore + (useOf(this.cgroups, this.cgroupPath(record.id))?.cpuUsec ?? 0)
  }

  /** How a machine that is over ended: what its guest said, or that the VMM went without a word of the guest. */
  endOf(record: VmRecord, consoleWords: string | undefined): ExitRecord {
    const at = this.folder(record.id)
    const known = readEnd(at) ?? readGuestExit(at)
    if (known) return known
    const end = { exitCode: 137, signal: 9, at: systemClock.now() }
    if (record.bootId !== bootId) {
      return { ...end, oomKilled: false, error: 'the host was restarted' }
    }
    if (oomKills(this.cgroups, this.cgroupPath(record.id)) > 0) {
      const error = 'the monitor of the machine (QEMU) took more memory than it may and was killed'
      return { ...end, oomKilled: true, error }
    }
    const panic = /Kernel panic[^\n]*/.exec(consoleWords ?? '')?.[0]
    const words = panic ?? (tailOfFile(at.vmmLog, 300).trim() || 'it left no word')
    const what = panic ? 'the kernel of the machine gave up' : 'the monitor of the machine ended'
    return { ...end, oomKilled: false, error: `${what}: ${words}` }
  }
}
