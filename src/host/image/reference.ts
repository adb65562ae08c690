import { Fault } from '#core/fault.ts'

/** A parsed image reference: every default is filled in, so two spellings of one image are equal. */
export interface ImageReference {
  /** `docker.io`, `127.0.0.1:5000`. */
  registry: string
  /** `library/debian`. */
  repository: string
  /** Absent only when the reference names a digest alone. */
  tag?: string
  /** `sha256:…`: wins over the tag. */
  digest?: string
}

const domainPart = '(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])'
const domainPattern = new RegExp(
  `^(?:${domainPart}(?:\\.${domainPart})*|\\[[a-fA-F0-9:]+\\])(?::[0-9]+)?$`,
)
const repositoryPart = '[a-z0-9]+(?:(?:\\.|_|__|-+)[a-z0-9]+)*'
const repositoryPattern = new RegExp(`^${repositoryPart}(?:/${repositoryPart})*$`)
const tagPattern = /^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$/
const digestPattern = /^sha256:[0-9a-f]{64}$/

export const isDigest = (text: string): boolean => digestPattern.test(text)

function refuse(text: string, why: string): Fault {
  return new Fault(
    'invalid',
    `"${text.slice(0, 300)}" is not an image reference: ${why}; write it like debian:bookworm, ghcr.io/owner/app:1.2 or registry.example/app@sha256:<64 digits>`,
  )
}

/** The first component is a registry when it looks like a host; otherwise the image is of the public default registry. */
function splitRegistry(name: string): { registry: string; repository: string } {
  const slash = name.indexOf('/')
  const first = slash === -1 ? '' : name.slice(0, slash)
  const isHost = /[.:]/.test(first) || first === 'localhost' || first !== first.toLowerCase()
  const registry = isHost ? first : 'docker.io'
  const repository = isHost ? name.slice(slash + 1) : name
  if (registry !== 'docker.io' && registry !== 'index.docker.io') return { registry, repository }
  return {
    registry: 'docker.io',
    repository: repository.includes('/') ? repository : `library/${repository}`,
  }
}

/** Parses by docker's reference grammar. Throws Fault `invalid` that names the wrong part. */
export function parseReference(text: string): ImageReference {
  const at = text.indexOf('@')
  const digest = at === -1 ? undefined : text.slice(at + 1)
  if (digest !== undefined && !isDigest(digest)) {
    throw refuse(text, 'after "@" comes sha256: and 64 lowercase hexadecimal digits')
  }
  let name = at === -1 ? text : text.slice(0, at)
  // A colon after the last slash starts the tag; one before it belongs to the registry's port.
  const colon = name.indexOf(':', name.lastIndexOf('/') + 1)
  const tag = colon === -1 ? undefined : name.slice(colon + 1)
  if (colon !== -1) name = name.slice(0, colon)
  if (tag !== undefined && !tagPattern.test(tag)) {
    throw refuse(text, `the tag "${tag}" may hold letters, digits, "_", "." and "-", at most 128`)
  }
  if (name === '') throw refuse(text, 'the name is empty')
  const { registry, repository } = splitRegistry(name)
  if (!domainPattern.test(registry)) throw refuse(text, `"${registry}" is not a registry host`)
  if (!repositoryPattern.test(repository)) {
    const why = /[A-Z]/.test(repository)
      ? 'a repository name must be lowercase'
      : `"${repository}" is not a repository name`
    throw refuse(text, why)
  }
  if (registry.length + 1 + repository.length > 255) {
    throw refuse(text, 'the name is longer than 255 characters')
  }
  if (digest === undefined) return { registry, repository, tag: tag ?? 'latest' }
  return { registry, repository, ...(tag === undefined ? {} : { tag }), digest }
}

/** `registry/repository:tag@digest`, with whichever of tag and digest there is. */
export function formatReference(reference: ImageReference): string {
  const tag = reference.tag === undefined ? '' : `:${reference.tag}`
  const digest = reference.digest === undefined ? '' : `@${reference.digest}`
  return `${reference.registry}/${reference.repository}${tag}${digest}`
}
