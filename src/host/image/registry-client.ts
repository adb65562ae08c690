import { createHash, randomInt } from 'node:crypto'
import { Fault, isFault, messageOf } from '#core/fault.ts'
import { systemClock, type Clock } from '#core/clock.ts'
import type { RegistryAccess } from '#spec/settings.ts'
import type { Logger } from '#sys/log.ts'
import { formatReference, type ImageReference } from './reference.ts'
import {
  answerChallenge,
  parseChallenge,
  type AuthorizationGrant,
  type Credentials,
} from './registry-auth.ts'
import { acceptManifests, type Descriptor } from './manifest.ts'
import { downloadBlob } from './blob-download.ts'

/** One address that may have an image: a mirror or the registry itself. */
export interface Endpoint {
  /** `https://host[:port][/prefix]`, no slash at the end. */
  url: string
  credentials: Credentials | undefined
}

export interface FetchedManifest {
  bytes: Buffer
  mediaType: string
  digest: string
}

export interface RegistryClient {
  /** The manifest or index that the reference names. Fault `image_unavailable` when no endpoint has it. */
  manifest(reference: ImageReference): Promise<FetchedManifest>
  /** A small blob in memory, verified. */
  blob(reference: ImageReference, descriptor: Descriptor): Promise<Buffer>
  /** A blob of any size into a file, verified while it streams. */
  blobToFile(
    reference: ImageReference,
    descriptor: Descriptor,
    target: { path: string; signal: AbortSignal },
  ): Promise<void>
}

export interface RegistryClientOptions {
  /** Registry host → endpoints asked first, in order, before the registry itself. */
  mirrors: Record<string, string[]>
  registries: readonly RegistryAccess[]
  log: Logger
  clock?: Clock
  /** A registry that sends nothing for this long is given up. */
  idleMs?: number
}

const attemptsMax = 4
/** With another endpoint to go to, one that cannot be reached gets less patience and then a rest. */
const attemptsWithOthersMax = 2
const restMs = 10_000
const headTimeoutMs = 30_000
/** Manifests and configurations; the distribution specification asks for at least 4 MiB. */
const smallBlobBytesMax = 8 * 1024 * 1024

/** Thrown for an answer that trying again may change. */
class Retriable extends Error {
  readonly waitMs: number
  constructor(message: string, waitMs = 0) {
    super(message)
    this.waitMs = waitMs
  }
}

const isLoopback = (host: string): boolean =>
  /^(localhost|127(?:\.\d{1,3}){3}|\[::1\])(:\d+)?$/.test(host)

/** The addresses to ask for an image, in order. */
export function endpointsFor(
  registry: string,
  options: Pick<RegistryClientOptions, 'mirrors' | 'registries'>,
): Endpoint[] {
  const accessOf = (host: string) => options.registries.find((access) => access.host === host)
  const credentialsOf = (host: string): Credentials | undefined => {
    const access = accessOf(host)
    return access?.username ? { username: access.username, password: access.password } : undefined
  }
  const mirrors = (options.mirrors[registry] ?? []).map((url) => ({
    url: url.replace(/\/+$/, ''),
    credentials: credentialsOf(new URL(url).host),
  }))
  const plain = isLoopback(registry) || accessOf(registry)?.insecure === true
  // The public default registry answers under another name than its references carry.
  const host = registry === 'docker.io' ? 'registry-1.docker.io' : registry
  return [
    ...mirrors,
    { url: `${plain ? 'http' : 'https'}://${host}`, credentials: credentialsOf(registry) },
  ]
}

/** Why a connection failed: fetch hides the reason one level down. */
function reasonOf(error: unknown): string {
  const cause =
    error instanceof Error ? (error.cause as NodeJS.ErrnoException | undefined) : undefined
  return cause?.code ?? cause?.message ?? messageOf(error)
}

async function refusal(response: Response): Promise<Error> {
  const words = (await response.text().catch(() => '')).slice(0, 2000)
  const said = /"message"\s*:\s*"([^"]{1,200})"/.exec(words)?.[1]
  const tail = said ? ` (${said})` : ''
  const { status } = response
  if (status === 404) return new Fault('image_unavailable', `has no such image${tail}`)
  if (status === 401 || status === 403) {
    return new Fault('image_unavailable', `refuses access${tail}`)
  }
  if (status === 429 || status >= 500) {
    const wait = Number(response.headers.get('retry-after') ?? 0) * 1000
    return new Retriable(`answered ${status}${tail}`, Math.min(wait || 0, 10_000))
  }
  return new Fault('image_unavailable', `answered ${status}${tail}`)
}

/** Throws Fault `invalid` when a mirror is no URL. */
export function createRegistryClient(options: RegistryClientOptions): RegistryClient {
  for (const [registry, urls] of Object.entries(options.mirrors)) {
    const wrong = urls.find((url) => !/^https?:\/\//.test(url) || !URL.canParse(url))
    if (wrong !== undefined) {
      throw new Fault(
        'invalid',
        `the mirror "${wrong}" of ${registry} is not a URL; write it like http://127.0.0.1:5000`,
      )
    }
  }
  const clock = options.clock ?? systemClock
  const idleMs = options.idleMs ?? 30_000
  const grants = new Map<string, AuthorizationGrant>()
  const restsUntil = new Map<string, number>()

  /** One GET with whatever authorization the registry asks for; resolves with a good answer only. */
  async function get(
    endpoint: Endpoint,
    request: {
      repository: string
      path: string
      headers: Record<string, string>
      signal: AbortSignal
    },
  ): Promise<Response> {
    const { repository, signal } = request
    const key = `${endpoint.url} ${repository}`
    for (let round = 0; ; round++) {
      const grant = grants.get(key)
      const headers = { ...request.headers }
      if (grant && grant.expiresAtMs > clock.now()) headers['authorization'] = grant.header
      const response = await fetch(`${endpoint.url}/v2/${repository}/${request.path}`, {
        headers,
        signal,
      })
      if (response.ok) return response
      const challenge = parseChallenge(response.headers.get('www-authenticate') ?? '')
      if (response.status !== 401 || !challenge || round > 0) throw await refusal(response)
      await response.body?.cancel()
      const { url: registryUrl, credentials } = endpoint
      const next = await answerChallenge({
        challenge,
        repository,
        registryUrl,
        credentials,
        clock,
        signal,
      })
      if (!next) throw new Fault('image_unavailable', 'refuses access: it wants credentials')
      if (grants.size >= 1000) grants.clear()
      grants.set(key, next)
    }
  }

  /** Tries one endpoint a few times: only lost connections and busy answers are worth it. */
  async function persist<T>(attemptsMax: number, action: () => Promise<T>): Promise<T> {
    for (let attempt = 1; ; attempt++) {
      try {
        return await action()
      } catch (error) {
        if (isFault(error) || (error as Error).name === 'AbortError') throw error
        if (attempt >= attemptsMax) {
          const unreachable = !(error instanceof Retriable)
          const words = unreachable ? `fails: ${reasonOf(error)}` : messageOf(error)
          throw new Fault('image_unavailable', words, { cause: error, details: { unreachable } })
        }
        const backoffMs = 100 * 2 ** attempt * (randomInt(50, 150) / 100)
        await clock.sleep(Math.max(backoffMs, error instanceof Retriable ? error.waitMs : 0))
      }
    }
  }

  /** Asks mirror after mirror and then the registry itself; the Fault tells what each of them said. */
  async function firstOf<T>(
    reference: ImageReference,
    action: (endpoint: Endpoint) => Promise<T>,
  ): Promise<T> {
    const said: string[] = []
    const endpoints = endpointsFor(reference.registry, options)
    for (const [at, endpoint] of endpoints.entries()) {
      const others = at < endpoints.length - 1
      if (others && (restsUntil.get(endpoint.url) ?? 0) > clock.now()) {
        said.push(`${endpoint.url} could not be reached a moment ago`)
        continue
      }
      try {
        return await persist(others ? attemptsWithOthersMax : attemptsMax, () => action(endpoint))
      } catch (error) {
        // Our own disk, our own bug: another endpoint would not help.
        if (!isFault(error, 'image_unavailable')) throw error
        if (error.details?.['unreachable']) restsUntil.set(endpoint.url, clock.now() + restMs)
        said.push(`${endpoint.url} ${error.message}`)
        options.log.info({ endpoint: endpoint.url, error: error.message }, 'endpoint failed')
      }
    }
    throw new Fault(
      'image_unavailable',
      `cannot pull ${formatReference(reference)}: ${said.join('; ')}. Check the spelling of name and tag; a private registry needs its credentials in [registries] of hangar.toml`,
    )
  }

  async function readSmall(response: Response, what: string): Promise<Buffer> {
    const chunks: Uint8Array[] = []
    let size = 0
    for await (const chunk of response.body ?? []) {
      size += chunk.length
      if (size > smallBlobBytesMax) {
        throw new Fault('image_unavailable', `sent more than ${smallBlobBytesMax} bytes as ${what}`)
      }
      chunks.push(chunk)
    }
    return Buffer.concat(chunks)
  }

  const digestOf = (bytes: Buffer): string =>
    `sha256:${createHash('sha256').update(bytes).digest('hex')}`

  return {
    manifest: (reference) =>
      firstOf(reference, async (endpoint) => {
        const response = await get(endpoint, {
          repository: reference.repository,
          path: `manifests/${reference.digest ?? reference.tag}`,
          headers: { accept: acceptManifests },
          signal: AbortSignal.timeout(headTimeoutMs),
        })
        const bytes = await readSmall(response, 'a manifest')
        const digest = digestOf(bytes)
        if (reference.digest !== undefined && reference.digest !== digest) {
          throw new Fault('image_unavailable', `sent wrong bytes for manifest ${reference.digest}`)
        }
        return { bytes, digest, mediaType: response.headers.get('content-type') ?? '' }
      }),
    blob: (reference, descriptor) =>
      firstOf(reference, async (endpoint) => {
        const response = await get(endpoint, {
          repository: reference.repository,
          path: `blobs/${descriptor.digest}`,
          headers: {},
          signal: AbortSignal.timeout(headTimeoutMs),
        })
        const bytes = await readSmall(response, 'a configuration')
        if (digestOf(bytes) !== descriptor.digest) {
          throw new Fault('image_unavailable', `sent wrong bytes for blob ${descriptor.digest}`)
        }
        return bytes
      }),
    blobToFile: (reference, descriptor, { path, signal: cancelled }) =>
      firstOf(reference, async (endpoint) =>
        downloadBlob({
          descriptor,
          path,
          cancelled,
          idleMs,
          open: (headers, signal) =>
            get(endpoint, {
              repository: reference.repository,
              path: `blobs/${descriptor.digest}`,
              headers,
              signal,
            }),
        }),
      ),
  }
}
