import { existsSync, renameSync, statSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { Fault } from '#core/fault.ts'
import { growUnmounted, lengthen, readSuperblock, repairDisk } from '#host/volume/index.ts'
import { diskFull, saysDiskFull } from '#sys/disk-full.ts'
import { removeFile } from '#sys/files.ts'
import { run } from '#sys/process.ts'

const mebibyte = 1024 * 1024
const copyTimeoutMs = 10 * 60_000

/** Templates that are being made: machines that start at once make one, and not each over the other's. */
const making = new Map<string, Promise<void>>()

/** A sparse disk with an empty ext4, made once for each size: a copy of its few written blocks is quicker than a mkfs. */
async function template(folder: string, sizeMb: number): Promise<string> {
  const path = join(folder, `upper-${sizeMb}.img`)
  if (!existsSync(path)) {
    const made = making.get(path) ?? makeTemplate(path, sizeMb).finally(() => making.delete(path))
    making.set(path, made)
    await made
  }
  return path
}

async function makeTemplate(path: string, sizeMb: number): Promise<void> {
  const unfinished = `${path}.${process.pid}.new`
  const file = await open(unfinished, 'w', 0o600)
  await file.truncate(sizeMb * mebibyte)
  await file.close()
  const features = ['-O', '^resize_inode', '-J', 'size=16', '-E', 'assume_storage_prezeroed=1']
  await make('mkfs.ext4', ['-q', '-F', '-m', '0', ...features, unfinished])
  renameSync(unfinished, path)
}

/**
 * MCH-65: the disk for what a machine writes to its root, empty unless what is there is to be kept. What is kept grows to
 * the size, and stays as it is when it is larger.
 * @throws Fault `native_failed` when what is to be kept is damaged beyond what is repaired without a person
 */
export async function makeUpper(
  path: string,
  options: { templates: string; sizeMb: number; keep: boolean },
): Promise<void> {
  if (options.keep && existsSync(path) && statSync(path).size > 0) {
    return mendUpper(path, options.sizeMb * mebibyte)
  }
  const from = await template(options.templates, options.sizeMb)
  const unfinished = `${path}.new`
  // Not into a file that the copy of an earlier host process may still be writing.
  for (const before of [path, unfinished]) removeFile(before)
  await make('cp', ['--sparse=always', '--reflink=auto', from, unfinished])
  renameSync(unfinished, path)
}

async function make(program: string, args: string[]): Promise<void> {
  const { code, stderr } = await run(program, args, { timeoutMs: copyTimeoutMs })
  if (code === 0) return
  if (saysDiskFull(stderr)) throw diskFull()
  throw new Fault('native_failed', `${program} could not make the machine's disk: ${stderr.trim()}`)
}

/** Each step may be done again: a host that was killed after the first leaves a file system smaller than its file. */
async function mendUpper(path: string, bytes: number): Promise<void> {
  const folder = dirname(path)
  await lengthen(path, bytes)
  const { bytes: filled, isClean } = await readSuperblock(path)
  if (filled < statSync(path).size) await growUnmounted(folder, path, keptRoot)
  else if (!isClean) await repairDisk(folder, path, { whose: keptRoot })
}

const keptRoot = {
  name: 'what the machine wrote to its root',
  orElse: 'set rootfs.persist to "never", which builds the root anew',
}
