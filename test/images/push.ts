import { createHash } from 'node:crypto'
import { gunzipSync, gzipSync, zstdCompressSync, zstdDecompressSync } from 'node:zlib'

/** A small pusher of images for tests: whole layers in memory, docker or OCI media types. */

export interface LayerInput {
  mediaType: string
  bytes: Buffer
}

export interface Platform {
  os: string
  architecture: string
}

export interface ManifestDescriptor {
  mediaType: string
  digest: string
  size: number
}

export interface ImageInput {
  layers: readonly LayerInput[]
  /** The `config` object of the image configuration: Env, Cmd, … */
  config?: Record<string, unknown>
  platform?: Platform
  docker?: boolean
}

export const thisPlatform: Platform = {
  os: 'linux',
  architecture: process.arch === 'x64' ? 'amd64' : process.arch,
}

const oci = 'application/vnd.oci.image'
const docker = 'application/vnd.docker'

/** A layer out of an uncompressed tar. */
export function layer(tar: Buffer, packing: 'none' | 'gzip' | 'zstd' = 'gzip'): LayerInput {
  const base = `${oci}.layer.v1.tar`
  if (packing === 'none') return { mediaType: base, bytes: tar }
  if (packing === 'zstd') return { mediaType: `${base}+zstd`, bytes: zstdCompressSync(tar) }
  return { mediaType: `${base}+gzip`, bytes: gzipSync(tar, { level: 1 }) }
}

export const digestOf = (bytes: Buffer): string =>
  `sha256:${createHash('sha256').update(bytes).digest('hex')}`

/** The digest of a layer as it is unpacked: what an engine finds its layers by. */
function diffIdOf({ mediaType, bytes }: LayerInput): string {
  try {
    if (mediaType.endsWith('gzip')) return digestOf(gunzipSync(bytes))
    if (mediaType.endsWith('zstd')) return digestOf(zstdDecompressSync(bytes))
  } catch {
    // A layer that a test has broken on purpose has no unpacked form.
  }
  return digestOf(bytes)
}

async function expectStatus(response: Response, wanted: number, what: string): Promise<Response> {
  if (response.status === wanted) return response
  throw new Error(`${what} answered ${response.status}: ${(await response.text()).slice(0, 500)}`)
}

export interface Pusher {
  blob(repository: string, bytes: Buffer): Promise<void>
  image(repository: string, tag: string, image: ImageInput): Promise<ManifestDescriptor>
  index(
    repository: string,
    tag: string,
    children: readonly (ManifestDescriptor & { platform: Platform })[],
  ): Promise<ManifestDescriptor>
  /** Gives a manifest that is there one more tag. */
  tag(repository: string, from: string, to: string): Promise<void>
}

/** `authorization` is sent with every request when the registry wants one. */
export function createPusher(url: string, authorization?: string): Pusher {
  const headers: Record<string, string> = authorization ? { authorization } : {}

  async function blob(repository: string, bytes: Buffer): Promise<void> {
    const digest = digestOf(bytes)
    const there = await fetch(`${url}/v2/${repository}/blobs/${digest}`, {
      method: 'HEAD',
      headers,
    })
    if (there.ok) return
    const started = await expectStatus(
      await fetch(`${url}/v2/${repository}/blobs/uploads/`, { method: 'POST', headers }),
      202,
      `an upload to ${repository}`,
    )
    const place = new URL(started.headers.get('location') as string, url)
    place.searchParams.set('digest', digest)
    const done = await fetch(place, {
      method: 'PUT',
      headers: { ...headers, 'content-type': 'application/octet-stream' },
      body: new Uint8Array(bytes),
    })
    await expectStatus(done, 201, `the blob ${digest} of ${repository}`)
  }

  async function manifest(
    repository: string,
    reference: string,
    content: { mediaType: string },
  ): Promise<ManifestDescriptor> {
    const bytes = Buffer.from(JSON.stringify(content))
    const digest = digestOf(bytes)
    const response = await fetch(`${url}/v2/${repository}/manifests/${reference || digest}`, {
      method: 'PUT',
      headers: { ...headers, 'content-type': content.mediaType },
      body: new Uint8Array(bytes),
    })
    await expectStatus(response, 201, `the manifest ${repository}:${reference}`)
    return { mediaType: content.mediaType, digest, size: bytes.length }
  }

  async function image(
    repository: string,
    tag: string,
    input: ImageInput,
  ): Promise<ManifestDescriptor> {
    const config = Buffer.from(
      JSON.stringify({
        ...(input.platform ?? thisPlatform),
        config: input.config ?? {},
        rootfs: { type: 'layers', diff_ids: input.layers.map(diffIdOf) },
      }),
    )
    for (const bytes of [...input.layers.map((each) => each.bytes), config]) {
      await blob(repository, bytes)
    }
    const describe = (mediaType: string, bytes: Buffer) => ({
      mediaType,
      digest: digestOf(bytes),
      size: bytes.length,
    })
    return manifest(repository, tag, {
      schemaVersion: 2,
      mediaType: input.docker
        ? `${docker}.distribution.manifest.v2+json`
        : `${oci}.manifest.v1+json`,
      config: describe(
        input.docker ? `${docker}.container.image.v1+json` : `${oci}.config.v1+json`,
        config,
      ),
      layers: input.layers.map((each) => describe(each.mediaType, each.bytes)),
    } as { mediaType: string })
  }

  return {
    blob,
    image,
    index: (repository, tag, children) =>
      manifest(repository, tag, {
        schemaVersion: 2,
        mediaType: `${oci}.index.v1+json`,
        manifests: children,
      } as { mediaType: string }),
    async tag(repository, from, to) {
      const accept = [
        `${oci}.manifest.v1+json`,
        `${oci}.index.v1+json`,
        `${docker}.distribution.manifest.v2+json`,
      ].join(', ')
      const there = await expectStatus(
        await fetch(`${url}/v2/${repository}/manifests/${from}`, {
          headers: { ...headers, accept },
        }),
        200,
        `the manifest ${repository}:${from}`,
      )
      const mediaType = there.headers.get('content-type') as string
      const response = await fetch(`${url}/v2/${repository}/manifests/${to}`, {
        method: 'PUT',
        headers: { ...headers, 'content-type': mediaType },
        body: await there.arrayBuffer(),
      })
      await expectStatus(response, 201, `the manifest ${repository}:${to}`)
    },
  }
}
