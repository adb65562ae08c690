import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, lchownSync, mkdirSync, renameSync, statSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { createServer, type Server, type Socket } from 'node:net'
import { join } from 'node:path'
import { z } from 'zod'
import { systemClock } from '#core/clock.ts'
import { Fault } from '#core/fault.ts'
import { diskFull, saysDiskFull } from '#sys/disk-full.ts'
import { readJsonFile, removeFile, writeFileAtomic } from '#sys/files.ts'
import { discard } from '../machine-folder.ts'
import type { Qmp } from './qmp.ts'
import { manifestSchema, type SnapshotManifest, type VmFolder, type VmRecord } from './vm-folder.ts'
import type { VmPlace } from './vm-place.ts'

const abandonTimeoutMs = 10_000
const statusSchema = z.object({
  status: z.string().optional(),
  'error-desc': z.string().optional(),
})

/**
 * Writes memory and devices of a VM that stands still. Its bytes go from QEMU through a socket and `cat` into the file:
 * QEMU may start no program and open no file. A manifest and one rename make it count; until then it is nothing, and
 * after that the VM must not go on. Given up by `signal`, it never becomes one.
 */
export async function saveSnapshot(
  place: VmPlace,
  record: VmRecord,
  { qmp, signal }: { qmp: Qmp; signal: AbortSignal },
): Promise<void> {
  const at = place.folder(record.id)
  signal.throwIfAborted()
  discard(place.folders, at.unfinished)
  mkdirSync(at.unfinished, { mode: 0o700 })
  const memory = join(at.unfinished, 'memory')
  await saveMemory(at, record, { qmp, memory, signal })
  const upper = await open(at.upper)
  try {
    await upper.datasync()
  } finally {
    await upper.close()
  }
  signal.throwIfAborted()
  const manifest: SnapshotManifest = {
    makers: record.makers,
    args: record.args,
    memoryBytes: statSync(memory).size,
    upperBytes: statSync(at.upper).size,
    cpuUsec: place.cpuUsec(record),
  }
  writeFileAtomic(join(at.unfinished, 'manifest.json'), JSON.stringify(manifest), 0o600)
  // In one breath with the last look at the signal: whoever gave up has discarded what is there.
  renameSync(at.unfinished, at.snapshot)
  const folder = await open(at.dir)
  try {
    await folder.sync()
  } finally {
    await folder.close()
  }
}

async function saveMemory(
  at: VmFolder,
  record: VmRecord,
  { qmp, memory, signal }: { qmp: Qmp; memory: string; signal: AbortSignal },
): Promise<void> {
  const path = `/proc/${record.vmm?.pid}/cwd/memory.sock`
  removeFile(join(at.run, 'memory.sock'))
  const server = createServer({ pauseOnConnect: true })
  const file = await open(memory, 'w', 0o600)
  const abandon = new AbortController()
  const over = AbortSignal.any([abandon.signal, signal])
  try {
    server.listen(path)
    await once(server, 'listening')
    // The folder is the VMM's: what it may have put there instead is not followed.
    lchownSync(join(at.run, 'memory.sock'), record.uid, record.uid)
    const copied = copyFrom(server, { to: file.fd, bytesMax: memoryBytesMax(record), signal: over })
    copied.catch(() => {}) // Waited for below, unless QEMU refuses.
    await qmp.execute('migrate-set-parameters', { 'max-bandwidth': 100 * 2 ** 30 })
    // What is not begun now never is: whoever gave up has looked already whether there is anything to cancel.
    signal.throwIfAborted()
    await qmp.execute('migrate', { uri: 'unix:memory.sock' })
    // When nothing takes the bytes any more, that says why: QEMU knows only that its socket broke.
    await Promise.all([migrated(qmp, signal), copied])
    await file.datasync()
  } finally {
    abandon.abort()
    server.close()
    await file.close()
  }
}

const slackBytes = 64 * 2 ** 20

/** A page of memory comes with a head of a few bytes, at most once since the VM stands still; beside them devices. */
export const memoryBytesMax = ({ memoryMb }: Pick<VmRecord, 'memoryMb'>): number =>
  Math.ceil(memoryMb * 2 ** 20 * 1.01) + slackBytes

/** The bytes of the first who connects, into a file; no more than `bytesMax`. */
export async function copyFrom(
  server: Server,
  { to, bytesMax, signal }: { to: number; bytesMax: number; signal: AbortSignal },
): Promise<void> {
  const [socket] = (await once(server, 'connection', { signal })) as [Socket]
  const cat = spawn('prlimit', [`--fsize=${bytesMax}`, 'cat'], {
    stdio: [socket, to, 'pipe'],
    signal,
    killSignal: 'SIGKILL',
  })
  cat.on('error', () => {}) // Told by its exit.
  let said = ''
  cat.stderr?.on('data', (chunk: Buffer) => (said = (said + chunk.toString()).slice(-500)))
  const exited = once(cat, 'close')
  socket.destroy() // Ours alone: cat has its own.
  const [code, killed] = (await exited) as [number | null, NodeJS.Signals | null]
  if (killed === 'SIGXFSZ') {
    const words = `its monitor had more to save than ${bytesMax} bytes, which cannot be its memory`
    throw new Fault('native_failed', words)
  }
  if (saysDiskFull(said)) throw diskFull()
  if (code !== 0) throw new Fault('native_failed', 'the memory of the machine could not be written')
}

async function migrated(qmp: Qmp, signal: AbortSignal): Promise<void> {
  for (let waitMs = 5; ; waitMs = Math.min(100, waitMs * 2)) {
    const now = statusSchema.parse(await qmp.execute('query-migrate'))
    if (now.status === 'completed') return
    if (now.status === 'failed' || now.status === 'cancelled') {
      throw new Fault('native_failed', `its memory was not saved: ${now['error-desc'] ?? 'failed'}`)
    }
    await systemClock.sleep(waitMs, signal)
  }
}

const atRest = ['none', 'completed', 'failed', 'cancelled']

/**
 * Lets a VM go on that a process before us made stand still. What it was writing may still be under way, and would make
 * the VM stand still again when it is done: it is given up first.
 */
export async function goOn(qmp: Qmp): Promise<void> {
  const until = performance.now() + abandonTimeoutMs
  for (;;) {
    const { status = 'none' } = statusSchema.parse(await qmp.execute('query-migrate'))
    if (atRest.includes(status)) break
    if (performance.now() > until) {
      throw new Fault('timeout', 'a snapshot that was under way could not be given up')
    }
    if (status !== 'cancelling') await qmp.execute('migrate_cancel')
    await systemClock.sleep(10)
  }
  if ((await qmp.status()) !== 'running') await qmp.execute('cont')
}

/** Why a snapshot is of no use; undefined when it is whole and of the same makers. */
export function snapshotFlaw(at: VmFolder, record: VmRecord, makers: string): string | undefined {
  const manifest = manifestSchema.safeParse(readJsonFile(at.manifestFile)).data
  if (!manifest) return 'it has no manifest that can be read'
  if (manifest.makers !== makers) {
    return `it was made by ${manifest.makers}, and here is ${makers}`
  }
  if (JSON.stringify(manifest.args) !== JSON.stringify(record.args)) {
    return 'the machine has changed since'
  }
  const sizeOf = (path: string) => (existsSync(path) ? statSync(path).size : -1)
  if (sizeOf(at.memoryFile) !== manifest.memoryBytes) return 'its memory file was cut short'
  if (sizeOf(at.upper) !== manifest.upperBytes) return 'its disk is gone or was changed'
  return undefined
}

export function readManifest(at: VmFolder): SnapshotManifest | undefined {
  return manifestSchema.safeParse(readJsonFile(at.manifestFile)).data
}
