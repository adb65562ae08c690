import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync, rmdirSync } from 'node:fs'
import { join } from 'node:path'
import { Fault } from '#core/fault.ts'
import { systemClock } from '#core/clock.ts'
import { run } from '#sys/process.ts'
import type { MachineFolder, RuntimeFolders } from './machine-folder.ts'

/** The kernel's list of what is mounted is the only record of mounts. Spaces and the like are written in octal there. */
function mountLines(): string[] {
  return readFileSync('/proc/self/mountinfo', 'utf8').split('\n')
}

const escaped = (path: string) =>
  path.replaceAll(/[ \t\n\\]/g, (c) => `\\${c.charCodeAt(0).toString(8).padStart(3, '0')}`)

export function isMounted(path: string): boolean {
  const needle = ` ${escaped(path)} `
  return mountLines().some((line) => line.includes(needle))
}

async function mount(args: string[], what: string): Promise<void> {
  const result = await run('mount', args, { timeoutMs: 30_000 })
  if (result.code !== 0) {
    throw new Fault('native_failed', `cannot mount ${what}: ${result.stderr.trim()}`)
  }
}

/** Unmounts a path until nothing is mounted there. A mount that stays busy is detached: it goes with its last user. */
export async function unmount(path: string): Promise<void> {
  for (let attempt = 0; isMounted(path); attempt++) {
    const lazily = attempt >= 6
    const { code, stderr } = await run('umount', lazily ? ['-l', path] : [path])
    if (code === 0) continue
    if (attempt > 10) throw new Fault('native_failed', `cannot unmount ${path}: ${stderr.trim()}`)
    await systemClock.sleep(5 * 2 ** Math.min(attempt, 5))
  }
}

/** Where an image is mounted: one place for each squashfs, shared by all machines that run it. */
export function imageMountPath(folders: RuntimeFolders, squashfsPath: string): string {
  const key = createHash('sha256').update(squashfsPath).digest('hex').slice(0, 16)
  return join(folders.images, key)
}

/** Mounts an image read-only unless it is; call it for one image at a time. */
export async function mountImage(folders: RuntimeFolders, squashfsPath: string): Promise<string> {
  const path = imageMountPath(folders, squashfsPath)
  if (isMounted(path)) return path
  if (!existsSync(squashfsPath)) {
    throw new Fault(
      'native_failed',
      `${squashfsPath} is missing; start the machine again, which pulls its image`,
    )
  }
  mkdirSync(path, { recursive: true, mode: 0o755 })
  const options = 'loop,ro,nodev,nosuid'
  await mount(['-n', '-i', '-t', 'squashfs', '-o', options, squashfsPath, path], squashfsPath)
  return path
}

/**
 * The writable root of a machine over its image. `volatile`, unless it is `lasting`: the root does not outlive the
 * machine, so nothing in it is worth a sync; without it an unmount writes the whole disk's dirty pages out. What is kept
 * may lie over another image the next time, so nothing in it may refer to files of this one.
 */
export async function mountRoot(
  at: MachineFolder,
  imageMount: string,
  { lasting }: { lasting: boolean },
): Promise<void> {
  const folders = `lowerdir=${imageMount},upperdir=${at.upper},workdir=${at.work}`
  const manner = lasting ? 'redirect_dir=off,metacopy=off,index=off' : 'volatile'
  const args = ['-n', '-i', '-t', 'overlay', '-o', `${folders},${manner}`, 'overlay', at.root]
  await mount(args, `root ${at.root}`)
}

/** Unmounts the images that no root lies over and no record names. */
export async function unmountUnusedImages(
  folders: RuntimeFolders,
  named: ReadonlySet<string>,
): Promise<void> {
  for (const key of readdirSync(folders.images)) {
    const path = join(folders.images, key)
    const lower = `lowerdir=${escaped(path)},`
    if (named.has(path) || mountLines().some((line) => line.includes(lower))) continue
    await unmount(path)
    rmdirSync(path)
  }
}
