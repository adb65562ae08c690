import { z } from 'zod'
import { Fault } from '#core/fault.ts'
import { isDigest } from './reference.ts'

/** What registries say about images: indexes, manifests, configurations; docker's schema 2 and OCI alike. */

export const manifestTypes = {
  ociIndex: 'application/vnd.oci.image.index.v1+json',
  ociManifest: 'application/vnd.oci.image.manifest.v1+json',
  dockerList: 'application/vnd.docker.distribution.manifest.list.v2+json',
  dockerManifest: 'application/vnd.docker.distribution.manifest.v2+json',
} as const

export const acceptManifests = Object.values(manifestTypes).join(', ')

const descriptorSchema = z.object({
  mediaType: z.string().default(''),
  digest: z.string().refine(isDigest, 'a sha256 digest'),
  size: z.int().min(0),
})
export type Descriptor = z.infer<typeof descriptorSchema>

const platformSchema = z.object({
  os: z.string().default(''),
  architecture: z.string().default(''),
  variant: z.string().nullish(),
})

const indexSchema = z.object({
  manifests: z.array(descriptorSchema.extend({ platform: platformSchema.nullish() })).max(1000),
})

const manifestSchema = z.object({
  config: descriptorSchema,
  layers: z.array(descriptorSchema).max(1000),
})
export type Manifest = z.infer<typeof manifestSchema>

const textList = z
  .array(z.string())
  .nullish()
  .transform((list) => list ?? [])
const text = z
  .string()
  .nullish()
  .transform((value) => value ?? '')

const configSchema = z.object({
  architecture: text,
  os: text,
  config: z
    .object({
      Env: textList,
      Entrypoint: textList,
      Cmd: textList,
      User: text,
      WorkingDir: text,
      ExposedPorts: z.record(z.string(), z.unknown()).nullish(),
      StopSignal: text,
      Labels: z.record(z.string(), z.string()).nullish(),
    })
    .nullish(),
})

/** How an image wants to be run. */
export const imageConfigSchema = z.object({
  env: z.array(z.string()),
  entrypoint: z.array(z.string()),
  cmd: z.array(z.string()),
  /** `name`, `uid`, `name:group` or empty for root. */
  user: z.string(),
  /** Empty when the image does not say. */
  workdir: z.string(),
  /** TCP ports, ascending. */
  exposedPorts: z.array(z.int()),
  stopSignal: z.string().optional(),
  labels: z.record(z.string(), z.string()),
})
export type ImageConfig = z.infer<typeof imageConfigSchema>

/** Our own machine's name in the words of images. */
export function hostArchitecture(arch: string = process.arch): string {
  return arch === 'x64' ? 'amd64' : arch
}

function parse<T>(schema: z.ZodType<T>, bytes: Buffer, what: string): T {
  let value: unknown
  try {
    value = JSON.parse(bytes.toString('utf8'))
  } catch (cause) {
    throw new Fault('image_unavailable', `${what} is not JSON; push the image again`, { cause })
  }
  const result = schema.safeParse(value)
  if (result.success) return result.data
  const issue = result.error.issues[0]
  throw new Fault(
    'image_unavailable',
    `${what} cannot be used (${issue?.path.join('.')}: ${issue?.message}); push the image again`,
  )
}

/** Indexes lead to the manifest of this machine's platform; anything else is read as a manifest. */
export function parseManifest(
  bytes: Buffer,
  options: { mediaType: string; architecture: string; what: string },
): { manifest: Manifest } | { child: Descriptor } {
  const { architecture, what } = options
  const mediaType = options.mediaType.split(';')[0]?.trim() ?? ''
  if (mediaType.includes('manifest.v1+')) {
    if (mediaType !== manifestTypes.ociManifest) {
      throw new Fault(
        'image_unavailable',
        `${what} is in docker's schema 1, which nothing writes any more; push the image again with a current tool`,
      )
    }
  }
  // Some registries answer with a generic content type: then the body says what it is.
  const isIndex =
    mediaType === manifestTypes.ociIndex ||
    mediaType === manifestTypes.dockerList ||
    (mediaType === 'application/json' && bytes.includes('"manifests"'))
  if (!isIndex) return { manifest: parse(manifestSchema, bytes, `the manifest of ${what}`) }
  const { manifests } = parse(indexSchema, bytes, `the index of ${what}`)
  const linux = manifests.filter(
    (entry) => entry.platform?.os === 'linux' && entry.platform.architecture === architecture,
  )
  // arm64 appears with variant v8 or none: both are the plain one.
  const plain = linux.find((entry) => !entry.platform?.variant || entry.platform.variant === 'v8')
  const child = plain ?? linux[0] ?? manifests.find((entry) => !entry.platform)
  if (child) return { child }
  const offered = manifests
    .map((entry) => `${entry.platform?.os}/${entry.platform?.architecture}`)
    .filter((name) => !name.startsWith('unknown'))
  throw new Fault(
    'image_unavailable',
    `${what} has no variant for linux/${architecture} (it has ${offered.join(', ') || 'none'}); build it with --platform linux/${architecture}`,
  )
}

function exposedPorts(ports: Record<string, unknown> | null | undefined): number[] {
  const numbers = Object.keys(ports ?? {})
    .filter((key) => /^\d+(\/tcp)?$/.test(key))
    .map((key) => Number.parseInt(key, 10))
    .filter((port) => port > 0 && port < 65536)
  return [...new Set(numbers)].sort((a, b) => a - b)
}

/** The configuration blob; refuses an image of another architecture. */
export function parseImageConfig(
  bytes: Buffer,
  options: { architecture: string; what: string },
): ImageConfig {
  const { architecture, what } = options
  const parsed = parse(configSchema, bytes, `the configuration of ${what}`)
  const built = `${parsed.os || 'linux'}/${parsed.architecture || architecture}`
  if (built !== `linux/${architecture}`) {
    throw new Fault(
      'image_unavailable',
      `${what} is built for ${built}, this host runs linux/${architecture}; build it with --platform linux/${architecture}`,
    )
  }
  const config = parsed.config
  return {
    env: config?.Env ?? [],
    entrypoint: config?.Entrypoint ?? [],
    cmd: config?.Cmd ?? [],
    user: config?.User ?? '',
    workdir: config?.WorkingDir ?? '',
    exposedPorts: exposedPorts(config?.ExposedPorts),
    ...(config?.StopSignal ? { stopSignal: config.StopSignal } : {}),
    labels: config?.Labels ?? {},
  }
}
