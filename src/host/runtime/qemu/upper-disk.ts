import { existsSync, renameSync, statSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { join } from 'node:path'
import { removeFile } from '#sys/files.ts'
import { runOk } from '#sys/process.ts'

const mebibyte = 1024 * 1024
const copyTimeoutMs = 10 * 60_000

/** A sparse disk with an empty ext4, made once for each size: a copy of its few written blocks is quicker than a mkfs. */
async function template(folder: string, sizeMb: number): Promise<string> {
  const path = join(folder, `upper-${sizeMb}.img`)
  if (existsSync(path)) return path
  const unfinished = `${path}.${process.pid}.new`
  const file = await open(unfinished, 'w', 0o600)
  await file.truncate(sizeMb * mebibyte)
  await file.close()
  const features = ['-O', '^resize_inode', '-J', 'size=16', '-E', 'assume_storage_prezeroed=1']
  await runOk('mkfs.ext4', ['-q', '-F', '-m', '0', ...features, unfinished])
  renameSync(unfinished, path)
  return path
}

/** MCH-65: the disk for what a machine writes to its root, empty unless what is there is to be kept. */
export async function makeUpper(
  path: string,
  options: { templates: string; sizeMb: number; keep: boolean },
): Promise<void> {
  if (options.keep && existsSync(path) && statSync(path).size > 0) return
  removeFile(path)
  const from = await template(options.templates, options.sizeMb)
  const unfinished = `${path}.new`
  await runOk('cp', ['--sparse=always', '--reflink=auto', from, unfinished], {
    timeoutMs: copyTimeoutMs,
  })
  renameSync(unfinished, path)
}
