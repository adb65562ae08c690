import { createHash } from 'node:crypto'
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
} from 'node:fs'
import { join } from 'node:path'
import { zstdDecompressSync } from 'node:zlib'
import { z } from 'zod'
import { Fault } from '#core/fault.ts'
import { withFileLock } from '#sys/file-lock.ts'
import { readJsonFile, removeFile, writeFileAtomic } from '#sys/files.ts'
import { runOk } from '#sys/process.ts'
import { initramfs } from './initramfs.ts'
import { inLoadOrder, moduleName, wantedModules } from './modules.ts'
import { unpackKernel } from './vmlinux.ts'

export interface GuestKernel {
  /** e.g. `6.1.0-56-amd64`. */
  release: string
  /** Of the Debian package. */
  packageDigest: string
  /** A bzImage on x86, an Image on ARM. */
  kernelPath: string
  /** The same as an ELF; on ARM, or for a packing that we do not know, the kernel itself. */
  elfPath: string
  initramfsPath: string
  /** Of kernel and initramfs together: what boots. */
  digest: string
}

export interface KernelOptions {
  /** Kept from one start to the next, and shared by hosts; may be removed whole while none of them runs. */
  cacheDir: string
  /** Of this host alone: an initramfs of an earlier PID 1 is removed from it. */
  initramfsDir: string
  /** PID 1. */
  initPath: string
}

const recordSchema = z.object({
  release: z.string(),
  package: z.string(),
  packageDigest: z.string(),
  /** `vmlinux`, or `vmlinuz` where there is none. */
  elf: z.enum(['vmlinux', 'vmlinuz']),
  /** In load order. */
  modules: z.array(z.string()),
})
type KernelRecord = z.infer<typeof recordSchema>

const downloadTimeoutMs = 300_000
const sha256 = (data: Buffer) => createHash('sha256').update(data).digest('hex')
const debianCpu = process.arch === 'arm64' ? 'arm64' : 'amd64'

/** Debian's generic kernel, fetched and unpacked once, and an initramfs for the PID 1 of now. Never installs anything. */
export async function guestKernel(options: KernelOptions): Promise<GuestKernel> {
  for (const at of [options.cacheDir, options.initramfsDir]) mkdirSync(at, { recursive: true })
  const dir = join(options.cacheDir, 'kernel')
  const record = readRecord(dir) ?? (await fetchOnce(options.cacheDir, dir))
  const modules = record.modules.map((name) => ({
    name,
    content: readFileSync(join(dir, 'modules', `${name}.ko`)),
  }))
  const image = initramfs({ init: readFileSync(options.initPath), modules })
  const imageDigest = sha256(image)
  const initramfsPath = keepInitramfs(options.initramfsDir, image, imageDigest)
  return {
    release: record.release,
    packageDigest: record.packageDigest,
    kernelPath: join(dir, 'vmlinuz'),
    elfPath: join(dir, record.elf),
    initramfsPath,
    digest: sha256(Buffer.from(`${record.packageDigest} ${imageDigest}`)),
  }
}

/** Where it lies. The others go: who boots or resumes reads this one, and who runs has read its own. */
function keepInitramfs(dir: string, image: Buffer, digest: string): string {
  const file = `initramfs-${digest.slice(0, 16)}.cpio`
  if (!existsSync(join(dir, file))) writeFileAtomic(join(dir, file), image)
  for (const name of readdirSync(dir)) {
    if (name.startsWith('initramfs-') && name !== file) removeFile(join(dir, name))
  }
  return join(dir, file)
}

function readRecord(dir: string): KernelRecord | undefined {
  return recordSchema.safeParse(readJsonFile(join(dir, 'kernel.json'))).data
}

/** Hosts that share a cache fetch once: the others wait, and find it there. */
function fetchOnce(cacheDir: string, dir: string): Promise<KernelRecord> {
  const file = join(cacheDir, 'fetch.lock')
  const lock = { file, purpose: 'a host that fetches the kernel', waitMs: 2 * downloadTimeoutMs }
  return withFileLock(lock, async () => {
    // Of fetches that died: nobody else is at one.
    for (const name of readdirSync(cacheDir).filter((entry) => entry.startsWith('fetch-'))) {
      rmSync(join(cacheDir, name), { recursive: true, force: true })
    }
    return readRecord(dir) ?? (await fetchKernel(cacheDir, dir))
  })
}

/** The package that the name `linux-image-amd64` stands for today. */
async function realPackage(): Promise<string> {
  const name = `linux-image-${debianCpu}`
  const words = await runOk('apt-cache', ['depends', '--important', name])
  const found = /Depends: (linux-image-[0-9][^\s]*)/.exec(words)?.[1]
  if (found) return found
  throw new Fault(
    'native_failed',
    `apt knows no ${name}; update its lists (apt-get update) and try again`,
  )
}

/** Makes `dir` whole beside its place and moves it there: a fetch that is cut short leaves nothing that counts. */
async function fetchKernel(cacheDir: string, dir: string): Promise<KernelRecord> {
  const work = mkdtempSync(join(cacheDir, 'fetch-'))
  try {
    const name = await realPackage()
    await runOk('apt-get', ['download', '-q', '-o', 'APT::Sandbox::User=root', name], {
      cwd: work,
      timeoutMs: downloadTimeoutMs,
    })
    const file = readdirSync(work).find((entry) => entry.endsWith('.deb'))
    if (!file) throw new Fault('native_failed', `apt-get download brought no file for ${name}`)
    const tree = join(work, 'tree')
    await runOk('dpkg-deb', ['-x', join(work, file), tree], { timeoutMs: downloadTimeoutMs })
    const made = join(work, 'kernel')
    const record = await pickFrom(tree, made, {
      name,
      digest: sha256(readFileSync(join(work, file))),
    })
    // On the disk before it has its name: after a power loss a kernel without bytes would be believed for ever.
    await runOk('sync', ['--file-system', made], { timeoutMs: downloadTimeoutMs })
    rmSync(dir, { recursive: true, force: true })
    renameSync(made, dir)
    return record
  } finally {
    rmSync(work, { recursive: true, force: true })
  }
}

async function pickFrom(
  tree: string,
  made: string,
  from: { name: string; digest: string },
): Promise<KernelRecord> {
  mkdirSync(join(made, 'modules'), { recursive: true })
  const kernel = readdirSync(join(tree, 'boot')).find((name) => name.startsWith('vmlinuz-'))
  if (!kernel) throw new Fault('native_failed', `the package ${from.name} holds no kernel`)
  copyFileSync(join(tree, 'boot', kernel), join(made, 'vmlinuz'))
  const unpacked = await unpackKernel(readFileSync(join(made, 'vmlinuz')), join(made, 'vmlinux'))
  const release = kernel.slice('vmlinuz-'.length)
  const folder = [`usr/lib/modules/${release}`, `lib/modules/${release}`]
    .map((path) => join(tree, path))
    .find((path) => existsSync(path))
  if (!folder) throw new Fault('native_failed', `the package ${from.name} holds no modules`)
  const files = new Map<string, string>()
  for (const path of readdirSync(folder, { recursive: true, encoding: 'utf8' })) {
    if (/\.ko(\.(xz|zst))?$/.test(path)) files.set(moduleName(path), join(folder, path))
  }
  const modules = await inLoadOrder(wantedModules, async (name) => readModule(files.get(name)))
  for (const { name, content } of modules)
    writeFileAtomic(join(made, 'modules', `${name}.ko`), content)
  const record: KernelRecord = {
    release,
    elf: unpacked ? 'vmlinux' : 'vmlinuz',
    package: from.name,
    packageDigest: from.digest,
    modules: modules.map(({ name }) => name),
  }
  writeFileAtomic(join(made, 'kernel.json'), JSON.stringify(record))
  return record
}

/** Debian 12 ships modules as they are, later releases compress them. */
async function readModule(path: string | undefined): Promise<Buffer | undefined> {
  if (path === undefined) return undefined
  if (path.endsWith('.zst')) return zstdDecompressSync(readFileSync(path))
  if (!path.endsWith('.xz')) return readFileSync(path)
  await runOk('xz', ['--decompress', path])
  return readFileSync(path.slice(0, -'.xz'.length))
}
