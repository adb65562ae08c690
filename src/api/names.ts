import { createSocket } from 'node:dgram'
import { isIPv4 } from 'node:net'
import dns, { type Answer, type DecodedPacket } from 'dns-packet'
import ipaddr from 'ipaddr.js'
import { listAddresses, type IpAssignment } from '#control/addresses/index.ts'
import { findApp } from '#control/apps/index.ts'
import type { ControlContext } from '#control/index.ts'

/** Queries being answered at once; what comes above that is dropped, and asked again by whoever asked. */
const queriesMax = 64
/** Look-ups in the database at once: nobody needs a token for these, and everybody else shares its connections. */
const lookupsMax = 4
/** How long the addresses of a name are good without another look: whoever waits for a new app asks again after that. */
const keptMs = 1_000
const keptMax = 1_000
const opcodeMask = 0x7800
const ttlSeconds = 5
/** RFC 1035: what fits a datagram without extensions. */
const datagramBytesMax = 512
const code = { formatError: 1, serverFailure: 2, noSuchName: 3, notImplemented: 4 }

export interface NameServer {
  port: number
  close(): Promise<void>
}

/**
 * Answers DNS over UDP for `<app>.fly.dev` and `<app>.<domain>` from the addresses that apps have, beside the API on the
 * port of the same number. Clients in the isolated network (`core/client-network.ts`) have nobody else to ask: every other
 * name does not exist, at once. Rejects when the port is taken.
 */
export async function serveNames(
  ctx: ControlContext,
  listen: { address: string; port: number },
): Promise<NameServer> {
  const socket = createSocket('udp4')
  const find = openLookup(ctx)
  let queries = 0
  socket.on('message', (query, from) => {
    if (queries >= queriesMax) return
    queries++
    void answerQuery(ctx, query, find)
      .then((answer) => answer && socket.send(answer, from.port, from.address, () => {}))
      .finally(() => queries--)
  })
  await new Promise<void>((resolve, reject) => {
    socket.once('error', reject)
    socket.bind(listen.port, listen.address, resolve)
  })
  socket.on('error', (err) => ctx.log.warn({ err }, 'the names'))
  return {
    port: socket.address().port,
    close: () => new Promise((resolve) => socket.close(resolve)),
  }
}

/** The public addresses of the app with this name; undefined when there is none. */
export type Lookup = (app: string) => Promise<readonly string[] | undefined>

/** Looks names up, a few at once, and the same one not again for a moment. */
export function openLookup(ctx: ControlContext): Lookup {
  const kept = new Map<string, { at: number; addresses: ReturnType<Lookup> }>()
  const waiting: (() => void)[] = []
  let free = lookupsMax
  const look: Lookup = async (name) => {
    if (free > 0) free--
    // A place is handed on: who was next finds it taken in its name.
    else await new Promise<void>((resolve) => waiting.push(resolve))
    try {
      const app = await findApp(ctx, name)
      return app && publicAddresses(await listAddresses(ctx, app))
    } finally {
      const next = waiting.shift()
      if (next) next()
      else free++
    }
  }
  return async (name) => {
    const at = ctx.clock.now()
    const known = kept.get(name)
    if (known && at - known.at < keptMs) return known.addresses
    const addresses = look(name)
    kept.delete(name)
    kept.set(name, { at, addresses })
    const [oldest] = kept.keys()
    if (kept.size > keptMax && oldest !== undefined) kept.delete(oldest)
    // What failed is looked up again at the next query.
    addresses.catch(() => kept.get(name)?.addresses === addresses && kept.delete(name))
    return addresses
  }
}

/** The datagram that answers this one; undefined when it is no query. Never throws. */
export async function answerQuery(
  ctx: ControlContext,
  query: Buffer,
  find: Lookup,
): Promise<Buffer | undefined> {
  const packet = decode(query)
  if (!packet || packet.type !== 'query') return undefined
  const reply = (flags: number, answers: Answer[] = []) =>
    dns.encode({
      type: 'response',
      id: packet.id ?? 0,
      flags: ((packet.flags ?? 0) & dns.RECURSION_DESIRED) | dns.RECURSION_AVAILABLE | flags,
      questions: (packet.questions ?? []).slice(0, 1),
      answers,
    })
  const question = packet.questions?.[0]
  if (((packet.flags ?? 0) & opcodeMask) !== 0) return reply(code.notImplemented)
  if (!question || packet.questions?.length !== 1) return reply(code.formatError)
  try {
    const app = appIn(ctx, question.name)
    const addresses = app === undefined ? undefined : await find(app)
    if (!addresses) return reply(code.noSuchName)
    const answer = reply(
      dns.AUTHORITATIVE_ANSWER,
      addresses
        .filter((address) => question.type === (isIPv4(address) ? 'A' : 'AAAA'))
        .map((data) => ({
          name: question.name,
          type: question.type as 'A',
          ttl: ttlSeconds,
          data,
        })),
    )
    return answer.length <= datagramBytesMax ? answer : reply(dns.TRUNCATED_RESPONSE)
  } catch (err) {
    ctx.log.warn({ err, name: question.name }, 'a name could not be looked up')
    return reply(code.serverFailure)
  }
}

function decode(query: Buffer): DecodedPacket | undefined {
  try {
    return dns.decode(query)
  } catch {
    return undefined
  }
}

/** The app that a name would be of. */
function appIn(ctx: ControlContext, name: string): string | undefined {
  const asked = name.toLowerCase()
  const suffix = ['.fly.dev', `.${ctx.settings.domain}`].find((one) => asked.endsWith(one))
  const label = suffix === undefined ? '' : asked.slice(0, -suffix.length)
  return /^[a-z0-9-]{1,63}$/.test(label) ? label : undefined
}

/** §10.5: shared ones and those of every region, not those of private networks. */
function publicAddresses(assigned: readonly IpAssignment[]): string[] {
  return assigned
    .filter((one) => one.type === 'shared_v4' || one.region === 'global')
    .map((one) => one.address)
    .filter((address) => isIPv4(address) || ipaddr.parse(address).range() !== 'uniqueLocal')
}
