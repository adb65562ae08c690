import { mkdirSync, readdirSync, rmSync, statSync } from 'node:fs'
import { mkdir, open, rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import { systemClock, type Clock } from '#core/clock.ts'
import { Fault } from '#core/fault.ts'
import { limits } from '#core/limits.ts'
import { ulid } from '#core/ids.ts'
import type { ResolvedImage } from '#spec/host-api.ts'
import type { RegistryAccess } from '#spec/settings.ts'
import { explainDiskFull } from '#sys/disk-full.ts'
import { readJsonFile } from '#sys/files.ts'
import type { Logger } from '#sys/log.ts'
import { flatten } from './flatten.ts'
import {
  hostArchitecture,
  imageConfigSchema,
  parseImageConfig,
  parseManifest,
  type ImageConfig,
  type Manifest,
} from './manifest.ts'
import { formatReference, isDigest, parseReference, type ImageReference } from './reference.ts'
import { createRegistryClient } from './registry-client.ts'

/** An image that is on this host, ready to be mounted. */
export interface LocalImage {
  /** Of the manifest for this host's platform. */
  digest: string
  squashfsPath: string
  config: ImageConfig
}

export interface ImageStoreOptions {
  dir: string
  /** Registry host → endpoints asked first, in order, before the registry itself. */
  mirrors: Record<string, string[]>
  registries: readonly RegistryAccess[]
  log: Logger
  clock?: Clock
  /** `collect` spares images that were asked for more recently than this. */
  graceMs?: number
}

export interface ImageStore {
  /** Asks the registries what a reference means now. Faults: `invalid`, `image_unavailable`, `too_large`. */
  resolve(ref: string): Promise<ResolvedImage>
  /** The image on this host, pulled and converted when it is not there; callers for one image share the work. */
  ensure(image: { ref: string }): Promise<LocalImage>
  /** Without the network: the image when it is on this host. */
  find(digest: string): LocalImage | undefined
  /** Removes images whose digest is not in use; how many they were. */
  collect(inUse: ReadonlySet<string>): Promise<number>
}

const recordSchema = z.object({
  digest: z.string().refine(isDigest),
  /** Compressed bytes of the layers. */
  size: z.int(),
  squashfsBytes: z.int(),
  config: imageConfigSchema,
})
type ImageRecord = z.infer<typeof recordSchema>

interface Remote {
  reference: ImageReference
  digest: string
  manifest: Manifest
}

const conversionsMax = 2
const downloadsMax = 3

const hexOf = (digest: string): string => digest.slice('sha256:'.length)
const sizeOf = (manifest: Manifest): number =>
  manifest.layers.reduce((sum, layer) => sum + layer.size, 0)

/** Runs at most `max` of the given jobs at a time. */
function createGate(max: number): <T>(job: () => Promise<T>) => Promise<T> {
  let free = max
  const waiting: (() => void)[] = []
  return async (job) => {
    if (free > 0) free--
    else await new Promise<void>((resolve) => waiting.push(resolve))
    try {
      return await job()
    } finally {
      const next = waiting.shift()
      if (next) next()
      else free++
    }
  }
}

/**
 * Opens the store and adopts what is there. `dir/images/<hex>/` holds one finished image: `root.squashfs` and
 * `image.json`; it appears by one rename. `dir/work/` holds unfinished ones, which the next open removes.
 */
export function openImageStore(options: ImageStoreOptions): ImageStore {
  const clock = options.clock ?? systemClock
  const graceMs = options.graceMs ?? 10 * 60_000
  const { log } = options
  const imagesDir = join(options.dir, 'images')
  const workDir = join(options.dir, 'work')
  const architecture = hostArchitecture()
  const client = createRegistryClient(options)
  const records = new Map<string, ImageRecord>()
  const askedAt = new Map<string, number>()
  const running = new Map<string, Promise<LocalImage>>()
  const convert = createGate(conversionsMax)

  rmSync(workDir, { recursive: true, force: true })
  mkdirSync(workDir, { recursive: true })
  mkdirSync(imagesDir, { recursive: true })
  for (const name of readdirSync(imagesDir)) {
    const record = adopt(join(imagesDir, name), name)
    if (record) records.set(record.digest, record)
    else rmSync(join(imagesDir, name), { recursive: true, force: true })
  }

  function adopt(folder: string, name: string): ImageRecord | undefined {
    const parsed = recordSchema.safeParse(readJsonFile(join(folder, 'image.json')))
    const file = statSync(join(folder, 'root.squashfs'), { throwIfNoEntry: false })
    const whole =
      parsed.success &&
      hexOf(parsed.data.digest) === name &&
      file?.size === parsed.data.squashfsBytes
    if (!whole) log.warn({ folder }, 'removing an image that is not whole')
    return whole ? parsed.data : undefined
  }

  function localImage(record: ImageRecord): LocalImage {
    const squashfsPath = join(imagesDir, hexOf(record.digest), 'root.squashfs')
    return { digest: record.digest, squashfsPath, config: record.config }
  }

  function find(digest: string): LocalImage | undefined {
    const record = records.get(digest)
    if (record) askedAt.set(digest, clock.now())
    return record && localImage(record)
  }

  async function fetchManifest(reference: ImageReference): Promise<Remote> {
    const what = formatReference(reference)
    const first = await client.manifest(reference)
    const parsed = parseManifest(first.bytes, { mediaType: first.mediaType, architecture, what })
    if ('manifest' in parsed) {
      return { reference, digest: first.digest, manifest: parsed.manifest }
    }
    const childReference = { ...reference, digest: parsed.child.digest }
    const child = await client.manifest(childReference)
    const inner = parseManifest(child.bytes, { mediaType: child.mediaType, architecture, what })
    if ('child' in inner) {
      throw new Fault('image_unavailable', `${what} is an index of indexes; push a plain image`)
    }
    return { reference, digest: child.digest, manifest: inner.manifest }
  }

  async function fetchConfig(remote: Remote): Promise<ImageConfig> {
    const what = formatReference(remote.reference)
    const odd = remote.manifest.layers.find((layer) => /foreign|encrypted/.test(layer.mediaType))
    if (odd) {
      throw new Fault(
        'image_unavailable',
        `${what} has a layer of type ${odd.mediaType}, which cannot be used here`,
      )
    }
    const size = sizeOf(remote.manifest)
    if (size > limits.imageBytesMax) {
      throw new Fault(
        'too_large',
        `${what} has ${size} bytes of layers, the limit is ${limits.imageBytesMax}; make it smaller`,
      )
    }
    const bytes = await client.blob(remote.reference, remote.manifest.config)
    return parseImageConfig(bytes, { architecture, what })
  }

  async function resolve(ref: string): Promise<ResolvedImage> {
    const reference = parseReference(ref)
    const local = reference.digest === undefined ? undefined : records.get(reference.digest)
    const remote = local ? undefined : await fetchManifest(reference)
    const digest = local?.digest ?? (remote as Remote).digest
    const config = records.get(digest)?.config ?? (await fetchConfig(remote as Remote))
    return {
      registry: reference.registry,
      repository: reference.repository,
      tag: reference.tag ?? '',
      digest,
      labels: Object.keys(config.labels).length > 0 ? config.labels : null,
      ref: formatReference({ ...reference, digest }),
      size: local?.size ?? sizeOf((remote as Remote).manifest),
      exposed_ports: config.exposedPorts,
    }
  }

  async function ensure(image: { ref: string }): Promise<LocalImage> {
    const reference = parseReference(image.ref)
    const present = reference.digest === undefined ? undefined : find(reference.digest)
    if (present) return present
    const remote = await fetchManifest(reference)
    const pulled = find(remote.digest)
    if (pulled) return pulled
    const shared = running.get(remote.digest)
    if (shared) return shared
    const work = convert(() => pull(remote)).finally(() => running.delete(remote.digest))
    running.set(remote.digest, work)
    return work
  }

  async function pull(remote: Remote): Promise<LocalImage> {
    const startedAt = clock.now()
    const folder = join(workDir, ulid())
    const blobs = join(folder, 'blobs')
    const result = join(folder, 'result')
    const abort = new AbortController()
    let layers: Promise<string>[] = []
    try {
      await mkdir(blobs, { recursive: true })
      await mkdir(result)
      const config = await fetchConfig(remote)
      layers = download(remote, { folder: blobs, signal: abort.signal })
      const squashfsPath = join(result, 'root.squashfs')
      await flatten({ layers, squashfsPath })
      const squashfsBytes = await flush(squashfsPath)
      const record = { digest: remote.digest, size: sizeOf(remote.manifest), squashfsBytes, config }
      await writeFile(join(result, 'image.json'), JSON.stringify(record), { flush: true })
      await publish(result, join(imagesDir, hexOf(remote.digest)))
      records.set(record.digest, record)
      askedAt.set(record.digest, clock.now())
      log.info(
        {
          image: formatReference(remote.reference),
          digest: remote.digest,
          bytes: record.size,
          squashfsBytes,
          tookMs: clock.now() - startedAt,
        },
        'image is ready',
      )
      return localImage(record)
    } catch (error) {
      throw explainDiskFull(error)
    } finally {
      abort.abort()
      await Promise.allSettled(layers)
      await rm(folder, { recursive: true, force: true })
    }
  }

  /** Starts the downloads of all layers; the promises are in the order of the manifest. */
  function download(
    remote: Remote,
    options: { folder: string; signal: AbortSignal },
  ): Promise<string>[] {
    const gate = createGate(downloadsMax)
    // The same layer may stand in a manifest several times.
    const started = new Map<string, Promise<string>>()
    return remote.manifest.layers.map((layer) => {
      const present = started.get(layer.digest)
      if (present) return present
      const path = join(options.folder, hexOf(layer.digest))
      const work = gate(async () => {
        await client.blobToFile(remote.reference, layer, { path, signal: options.signal })
        return path
      })
      work.catch(() => {}) // The reader of the layers may have failed before it comes to this one.
      started.set(layer.digest, work)
      return work
    })
  }

  async function collect(inUse: ReadonlySet<string>): Promise<number> {
    let count = 0
    for (const digest of records.keys()) {
      if (inUse.has(digest)) continue
      if (clock.now() - (askedAt.get(digest) ?? -Infinity) < graceMs) continue
      records.delete(digest)
      askedAt.delete(digest)
      // Out of the way by one rename, so that a kill in the middle leaves no half image behind.
      const trash = join(workDir, ulid())
      await rename(join(imagesDir, hexOf(digest)), trash)
      await rm(trash, { recursive: true, force: true })
      count++
    }
    return count
  }

  return { resolve, ensure, find, collect }
}

/** Waits until the file is on disk; its size. */
async function flush(path: string): Promise<number> {
  const file = await open(path, 'r')
  try {
    await file.sync()
    return (await file.stat()).size
  } finally {
    await file.close()
  }
}

async function publish(from: string, to: string): Promise<void> {
  await flush(from)
  await rename(from, to)
  await flush(join(to, '..'))
}
