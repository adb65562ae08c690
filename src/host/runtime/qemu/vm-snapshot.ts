import { spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  closeSync,
  existsSync,
  fsyncSync,
  lchownSync,
  mkdirSync,
  openSync,
  statSync,
} from 'node:fs'
import { open, rename } from 'node:fs/promises'
import { createServer, type Server, type Socket } from 'node:net'
import { join } from 'node:path'
import { z } from 'zod'
import { systemClock } from '#core/clock.ts'
import { Fault } from '#core/fault.ts'
import { readJsonFile, removeFile, writeFileAtomic } from '#sys/files.ts'
import { discard } from '../machine-folder.ts'
import type { Qmp } from './qmp.ts'
import { manifestSchema, type SnapshotManifest, type VmFolder, type VmRecord } from './vm-folder.ts'
import type { VmPlace } from './vm-place.ts'

const saveTimeoutMs = 120_000
const abandonTimeoutMs = 10_000
const statusSchema = z.object({
  status: z.string().optional(),
  'error-desc': z.string().optional(),
})

/**
 * Writes memory and devices of a VM that stands still. Its bytes go from QEMU through a socket and `cat` into the file:
 * QEMU may start no program and open no file. A manifest and one rename make it count; until then it is nothing, and
 * after that the VM must not go on.
 */
export async function saveSnapshot(place: VmPlace, record: VmRecord, qmp: Qmp): Promise<void> {
  const at = place.folder(record.id)
  discard(place.folders, at.unfinished)
  mkdirSync(at.unfinished, { mode: 0o700 })
  const memory = join(at.unfinished, 'memory')
  await saveMemory(at, record, { qmp, memory })
  const upper = await open(at.upper)
  try {
    await upper.datasync()
  } finally {
    await upper.close()
  }
  const manifest: SnapshotManifest = {
    makers: record.makers,
    args: record.args,
    memoryBytes: statSync(memory).size,
    upperBytes: statSync(at.upper).size,
    cpuUsec: place.cpuUsec(record),
  }
  writeFileAtomic(join(at.unfinished, 'manifest.json'), JSON.stringify(manifest), 0o600)
  await rename(at.unfinished, at.snapshot)
  const folder = openSync(at.dir, 'r')
  fsyncSync(folder)
  closeSync(folder)
}

async function saveMemory(
  at: VmFolder,
  record: VmRecord,
  { qmp, memory }: { qmp: Qmp; memory: string },
): Promise<void> {
  const path = `/proc/${record.vmm?.pid}/cwd/memory.sock`
  removeFile(join(at.run, 'memory.sock'))
  const server = createServer({ pauseOnConnect: true })
  const file = await open(memory, 'w', 0o600)
  const abandon = new AbortController()
  try {
    server.listen(path)
    await once(server, 'listening')
    // The folder is the VMM's: what it may have put there instead is not followed.
    lchownSync(join(at.run, 'memory.sock'), record.uid, record.uid)
    const copied = copyFrom(server, file.fd, abandon.signal)
    copied.catch(() => {}) // Waited for below, unless QEMU refuses.
    await qmp.execute('migrate-set-parameters', { 'max-bandwidth': 100 * 2 ** 30 })
    await qmp.execute('migrate', { uri: 'unix:memory.sock' })
    await migrated(qmp)
    await copied
    await file.datasync()
  } finally {
    abandon.abort()
    server.close()
    await file.close()
  }
}

async function copyFrom(server: Server, to: number, signal: AbortSignal): Promise<void> {
  const [socket] = (await once(server, 'connection', { signal })) as [Socket]
  const cat = spawn('cat', [], { stdio: [socket, to, 'ignore'], signal, killSignal: 'SIGKILL' })
  cat.on('error', () => {}) // Told by its exit.
  const exited = once(cat, 'exit')
  socket.destroy() // Ours alone: cat has its own.
  const [code] = (await exited) as [number | null]
  if (code !== 0) throw new Fault('native_failed', 'the memory of the machine could not be written')
}

async function migrated(qmp: Qmp): Promise<void> {
  const until = performance.now() + saveTimeoutMs
  for (let waitMs = 5; performance.now() < until; waitMs = Math.min(100, waitMs * 2)) {
    const now = statusSchema.parse(await qmp.execute('query-migrate'))
    if (now.status === 'completed') return
    if (now.status === 'failed' || now.status === 'cancelled') {
      throw new Fault('native_failed', `its memory was not saved: ${now['error-desc'] ?? 'failed'}`)
    }
    await systemClock.sleep(waitMs)
  }
  await qmp.execute('migrate_cancel')
  throw new Fault('timeout', `its memory was not saved within ${saveTimeoutMs / 1000} s`)
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
