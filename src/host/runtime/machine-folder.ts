import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import { readJsonFile, removeFile } from '#sys/files.ts'
import type { ExitRecord } from './driver.ts'

/**
 * What one machine has on disk. `machine.json` says what was begun, and is written before each step; nothing in it needs
 * an fsync, because mounts and processes do not outlive the kernel either: the boot id tells a record of another life.
 */
export interface MachineFolder {
  dir: string
  /** The OCI bundle: config.json and what the runtime says. */
  bundle: string
  root: string
  upper: string
  work: string
  pidFile: string
  errorFile: string
  recordFile: string
  endFile: string
  /** How much of the machine's output is in its log. */
  placeFile: string
}

export interface RuntimeFolders {
  machines: string
  images: string
  trash: string
  /** The OCI runtime's own state. */
  state: string
}

export function runtimeFolders(dir: string): RuntimeFolders {
  const folders = {
    machines: join(dir, 'machines'),
    images: join(dir, 'images'),
    trash: join(dir, 'trash'),
    state: join(dir, 'state'),
  }
  for (const folder of Object.values(folders)) mkdirSync(folder, { recursive: true, mode: 0o700 })
  return folders
}

export function machineFolder(folders: RuntimeFolders, id: string): MachineFolder {
  const dir = join(folders.machines, id)
  const bundle = join(dir, 'bundle')
  return {
    dir,
    bundle,
    root: join(dir, 'root'),
    upper: join(dir, 'upper'),
    work: join(dir, 'work'),
    pidFile: join(bundle, 'container.pid'),
    errorFile: join(bundle, 'runtime.err'),
    recordFile: join(dir, 'machine.json'),
    endFile: join(dir, 'end.json'),
    placeFile: join(dir, 'output.json'),
  }
}

export const identitySchema = z.object({ pid: z.int(), startTime: z.int() })

const recordSchema = z.object({
  id: z.string(),
  instanceId: z.string(),
  bootId: z.string(),
  /** The OCI runtime that holds this machine: another may be chosen after an upgrade. */
  runtime: z.string(),
  squashfsPath: z.string(),
  memoryMb: z.number(),
  logFile: z.string().default(''),
  /** The guest protocol that its PID 1 speaks; a machine of an older Hangar has none, and nobody can talk to it. */
  protocol: z.int().optional(),
  /** What it writes to its root is for its next start too. */
  lastingRoot: z.boolean().default(false),
  /** PID 1. */
  container: identitySchema.optional(),
  started: z.boolean(),
})
export type MachineRecord = z.infer<typeof recordSchema>

const endSchema = z.object({
  exitCode: z.int(),
  signal: z.int().optional(),
  oomKilled: z.boolean(),
  at: z.number(),
  error: z.string().optional(),
})

/** This boot of the kernel: a pid of another one names nobody. */
export const bootId: string = readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim()

/** Whole by its rename, and not flushed: no process of a machine outlives the kernel. */
export function writeWhole(path: string, value: object): void {
  writeFileSync(`${path}.tmp`, JSON.stringify(value), { mode: 0o600 })
  renameSync(`${path}.tmp`, path)
}

export const writeRecord = (at: MachineFolder, record: MachineRecord): void =>
  writeWhole(at.recordFile, record)

/** Undefined when there is none or it cannot be understood. */
export function readRecord(at: MachineFolder): MachineRecord | undefined {
  return recordSchema.safeParse(readJsonFile(at.recordFile)).data
}

export const writeEnd = ({ endFile }: { endFile: string }, end: ExitRecord): void =>
  writeWhole(endFile, end)

export function readEnd({ endFile }: { endFile: string }): ExitRecord | undefined {
  return endSchema.safeParse(readJsonFile(endFile)).data as ExitRecord | undefined
}

let trashNumber = 0

/** Moves a folder out of the way at once and deletes it in its own time: a root may hold many files. */
export function discard(folders: { trash: string }, path: string): void {
  const grave = join(folders.trash, `${process.pid}-${Date.now()}-${trashNumber++}`)
  try {
    renameSync(path, grave)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return
    throw error
  }
  rm(grave, { recursive: true, force: true }).catch(() => {}) // What is left goes at the next opening.
}

export function emptyTrash(folders: { trash: string }): void {
  for (const name of readdirSync(folders.trash)) {
    rm(join(folders.trash, name), { recursive: true, force: true }).catch(() => {})
  }
}

/** Writes a start down and makes its folders. Without an upper one that was kept, the root is the image's again (MCH-65). */
export function makeFolders(at: MachineFolder, record: MachineRecord): void {
  mkdirSync(at.dir, { recursive: true, mode: 0o700 })
  removeFile(at.endFile)
  removeFile(at.placeFile)
  // A folder without a record is a root that was kept.
  writeRecord(at, record)
  mkdirSync(at.bundle, { mode: 0o700 })
  mkdirSync(at.upper, { recursive: true, mode: 0o755 })
  mkdirSync(at.work, { mode: 0o700 })
  mkdirSync(at.root, { recursive: true, mode: 0o755 })
}

/** Removes all that one machine has on disk, with `keepRoot` all but what it wrote to its root. */
export function forget(
  folders: { trash: string },
  { dir, upper }: { dir: string; upper: string },
  options: { keepRoot: boolean },
): void {
  if (!options.keepRoot || !existsSync(upper)) return discard(folders, dir)
  for (const name of readdirSync(dir)) {
    const path = join(dir, name)
    if (path !== upper) discard(folders, path)
  }
}

export function removeState(folders: RuntimeFolders, id: string): void {
  rmSync(join(folders.state, id), { recursive: true, force: true })
}
