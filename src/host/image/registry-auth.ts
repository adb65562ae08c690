import { z } from 'zod'
import { Fault } from '#core/fault.ts'
import type { Clock } from '#core/clock.ts'

/** Who we are to a registry: nobody, a name with a password, or the bearer of a token that its realm gave us. */

export interface Credentials {
  username: string
  password: string
}

export interface Challenge {
  scheme: string
  parameters: Record<string, string>
}

/** Parses `WWW-Authenticate: Bearer realm="…",service="…",scope="…"`. */
export function parseChallenge(header: string): Challenge | undefined {
  const match = /^\s*([A-Za-z]+)(?:\s+(.*))?$/s.exec(header)
  if (!match) return undefined
  const parameters: Record<string, string> = {}
  for (const part of (match[2] ?? '').matchAll(/([A-Za-z_]+)=(?:"((?:[^"\\]|\\.)*)"|([^\s,]*))/g)) {
    const value = part[2] === undefined ? (part[3] ?? '') : part[2].replace(/\\(.)/g, '$1')
    parameters[(part[1] as string).toLowerCase()] = value
  }
  return { scheme: (match[1] as string).toLowerCase(), parameters }
}

const tokenSchema = z.object({
  token: z.string().optional(),
  access_token: z.string().optional(),
  expires_in: z.number().optional(),
})

const basic = ({ username, password }: Credentials): string =>
  `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}`

export interface AuthorizationGrant {
  header: string
  expiresAtMs: number
}

/**
 * Answers a 401: the header to send next time, or undefined when there is nothing more to offer. A password never goes
 * from an https registry to a plain http realm.
 */
export async function answerChallenge(options: {
  challenge: Challenge
  repository: string
  registryUrl: string
  credentials: Credentials | undefined
  clock: Clock
  signal: AbortSignal
}): Promise<AuthorizationGrant | undefined> {
  const { challenge, repository, registryUrl, credentials, clock, signal } = options
  if (challenge.scheme === 'basic') {
    return credentials && { header: basic(credentials), expiresAtMs: Infinity }
  }
  const realm = challenge.parameters['realm']
  if (challenge.scheme !== 'bearer' || !realm || !URL.canParse(realm)) return undefined
  const url = new URL(realm)
  if (url.protocol !== 'https:' && registryUrl.startsWith('https:') && credentials) {
    throw new Fault(
      'image_unavailable',
      `${registryUrl} asks for its password to be sent to ${url.origin} without encryption: refused`,
    )
  }
  const service = challenge.parameters['service']
  if (service) url.searchParams.set('service', service)
  url.searchParams.set('scope', challenge.parameters['scope'] ?? `repository:${repository}:pull`)
  const response = await fetch(url, {
    headers: credentials ? { authorization: basic(credentials) } : {},
    signal,
  })
  const body = await response.text()
  if (!response.ok) {
    throw new Fault(
      'image_unavailable',
      `${url.origin} gave no token for ${repository} (status ${response.status})${credentials ? ': check the user name and password' : ': the registry wants credentials'}`,
    )
  }
  const grant = tokenSchema.parse(JSON.parse(body))
  const token = grant.token ?? grant.access_token
  if (!token) return undefined
  // 60 s is the specification's default; ten less, so that a token does not run out on the way.
  const livesMs = Math.max((grant.expires_in ?? 60) - 10, 5) * 1000
  return { header: `Bearer ${token}`, expiresAtMs: clock.now() + livesMs }
}
