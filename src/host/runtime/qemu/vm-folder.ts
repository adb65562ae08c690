import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { z } from 'zod'
import { readJsonFile } from '#sys/files.ts'
import { identitySchema, readEnd, writeEnd, writeWhole } from '../machine-folder.ts'
import type { ExitRecord } from '../driver.ts'

/** What one host's VMs have on disk. */
export interface VmFolders {
  machines: string
  /** What guests said of their end, by machine: whole, or not there. */
  exits: string
  /** Empty upper disks, by size. */
  templates: string
  trash: string
}

export function vmFolders(dir: string): VmFolders {
  const folders = {
    machines: join(dir, 'machines'),
    exits: join(dir, 'exits'),
    templates: join(dir, 'templates'),
    trash: join(dir, 'trash'),
  }
  for (const folder of Object.values(folders)) mkdirSync(folder, { recursive: true, mode: 0o700 })
  return folders
}

/** What one VM has on disk. */
export interface VmFolder {
  dir: string
  recordFile: string
  endFile: string
  exitFile: string
  /** The VMM's own folder, which belongs to its user: the sockets. Its working directory. */
  run: string
  /** What the VMM's root is made of. */
  mountsFile: string
  /** What the machine writes to its root. */
  upper: string
  /** The VMM's own words. */
  vmmLog: string
  /** How much of the machine's output is in its log. */
  outputFile: string
  /** Memory and device state with the manifest that makes them count. */
  snapshot: string
  manifestFile: string
  memoryFile: string
  /** Loads of the snapshot that came to nothing. */
  triesFile: string
  /** A snapshot under way. */
  unfinished: string
}

export function vmFolder(folders: VmFolders, id: string): VmFolder {
  const dir = join(folders.machines, id)
  const snapshot = join(dir, 'snapshot')
  return {
    dir,
    recordFile: join(dir, 'machine.json'),
    endFile: join(dir, 'end.json'),
    exitFile: join(folders.exits, id),
    run: join(dir, 'run'),
    mountsFile: join(dir, 'mounts'),
    upper: join(dir, 'upper.img'),
    vmmLog: join(dir, 'vmm.log'),
    outputFile: join(dir, 'output.json'),
    snapshot,
    manifestFile: join(snapshot, 'manifest.json'),
    memoryFile: join(snapshot, 'memory'),
    triesFile: join(snapshot, 'tries.json'),
    unfinished: join(dir, 'snapshot.new'),
  }
}

const recordSchema = z.object({
  id: z.string(),
  instanceId: z.string(),
  bootId: z.string(),
  /** The VMM's user, and its group by the same number. */
  uid: z.int(),
  squashfsPath: z.string(),
  kernelPath: z.string(),
  initramfsPath: z.string(),
  /** Kernel, QEMU and how it runs: a snapshot made with others is of no use. */
  makers: z.string(),
  /** The VMM's arguments, the same at each resume. */
  args: z.array(z.string()),
  volumes: z.array(z.object({ source: z.string(), path: z.string() })),
  cpus: z.number(),
  cpuKind: z.enum(['shared', 'performance']),
  memoryMb: z.number(),
  netnsPath: z.string(),
  hasNic: z.boolean(),
  logFile: z.string(),
  /** Processor time of the VMMs before this one: each resume has a new one. */
  cpuUsecBefore: z.number(),
  vmm: identitySchema.optional(),
  /** The command was let go. */
  started: z.boolean(),
})
export type VmRecord = z.infer<typeof recordSchema>

/** Undefined when there is none or it cannot be understood. */
export function readVmRecord(at: VmFolder): VmRecord | undefined {
  return recordSchema.safeParse(readJsonFile(at.recordFile)).data
}

export const writeVmRecord = (at: VmFolder, record: VmRecord): void =>
  writeWhole(at.recordFile, record)

/** What the guest said of its end. */
export const writeGuestExit = ({ exitFile }: VmFolder, exit: ExitRecord): void =>
  writeEnd({ endFile: exitFile }, exit)

export const readGuestExit = ({ exitFile }: VmFolder): ExitRecord | undefined =>
  readEnd({ endFile: exitFile })

export const manifestSchema = z.object({
  makers: z.string(),
  args: z.array(z.string()),
  memoryBytes: z.number(),
  upperBytes: z.number(),
  cpuUsec: z.number(),
})
export type SnapshotManifest = z.infer<typeof manifestSchema>
