import { Fault } from '#core/fault.ts'
import { ulid } from '#core/ids.ts'
import type { AppRecord } from '../apps/index.ts'
import type { ControlContext } from '../context.ts'
import { knownRegions } from '../hosts/index.ts'
import { ensureNetwork, findOrg } from '../orgs/index.ts'
import { isUniqueViolation, type IpType } from '../store/index.ts'

export interface IpAssignment {
  id: string
  type: IpType
  address: string
  region: string
  serviceName: string
  createdAt: Date
}

export interface IpRequest {
  type?: unknown
  region?: unknown
  serviceName?: unknown
  /** For a flycast address: the organization and network that may use it, when not the app's own. */
  orgSlug?: unknown
  network?: unknown
}

const perAppMax = 64
const types: readonly IpType[] = ['v4', 'v6', 'shared_v4', 'private_v6']
/** Where the edge of this machine answers for every app; names decide which one is meant. */
const sharedIpv4 = '127.0.0.1'
/** Unique local addresses (RFC 4193): names for the record, never mistaken for somebody's real ones. */
const dedicatedPrefix = 'fd48:6e67'

type Store = Pick<ControlContext, 'db'>

/** NET-40: the app's addresses, oldest first. */
export async function listAddresses(
  ctx: Store,
  app: Pick<AppRecord, 'id'>,
): Promise<IpAssignment[]> {
  const rows = await ctx.db
    .selectFrom('ip_assignments')
    .selectAll()
    .where('app_id', '=', app.id)
    .orderBy('number')
    .execute()
  return rows.map((row) => ({
    id: row.id,
    type: row.type,
    address: row.address,
    region: row.region,
    serviceName: row.service_name,
    createdAt: row.created_at,
  }))
}

/**
 * Records an address for the app. Asking for the shared one again answers with the one there is. Faults: `invalid`;
 * `not_available_yet` for a dedicated IPv4; `limit_reached`.
 */
export async function allocateAddress(
  ctx: ControlContext,
  app: AppRecord,
  request: IpRequest,
): Promise<IpAssignment> {
  const type = types.find((one) => one === request.type)
  if (!type) {
    throw new Fault(
      'invalid',
      `type must be one of ${types.join(', ')}, not ${JSON.stringify(request.type)}`,
    )
  }
  if (type === 'v4') {
    throw new Fault(
      'not_available_yet',
      'dedicated IPv4 addresses are not available yet; use a shared one: shared_v4',
    )
  }
  const region = regionOf(ctx, type, request.region)
  const before = await listAddresses(ctx, app)
  const shared = before.find((one) => one.type === 'shared_v4')
  if (type === 'shared_v4' && shared) return shared
  if (before.length >= perAppMax) {
    throw new Fault('limit_reached', `app ${app.name} has ${before.length} addresses, the most`)
  }
  const network = type === 'private_v6' ? await networkOf(ctx, app, request) : 0
  const service = typeof request.serviceName === 'string' ? request.serviceName : ''
  return insert(ctx, app, { type, region, service, network })
}

function regionOf(ctx: ControlContext, type: IpType, region: unknown): string {
  if (type === 'shared_v4') return ''
  if (region === undefined || region === null || region === '') return 'global'
  const known = knownRegions(ctx)
  if (typeof region === 'string' && (region === 'global' || known.includes(region))) return region
  throw new Fault(
    'invalid',
    `region ${JSON.stringify(region)} is not known here: ${known.join(', ')}`,
  )
}

async function networkOf(ctx: Store, app: AppRecord, request: IpRequest): Promise<number> {
  const { orgSlug, network } = request
  const name = typeof network === 'string' ? network : ''
  const slug = typeof orgSlug === 'string' ? orgSlug : ''
  if (name === '' && slug === '') return app.network
  const org = slug === '' ? app.org : await findOrg(ctx, slug)
  if (!org) throw new Fault('invalid', `there is no organization ${slug}`)
  return ensureNetwork(ctx, org.id, name || 'default')
}

/** The row's own number makes the address: no two apps are given the same one. */
async function insert(
  ctx: Store,
  app: Pick<AppRecord, 'id'>,
  want: { type: IpType; region: string; service: string; network: number },
): Promise<IpAssignment> {
  const id = `ip_${ulid().toLowerCase()}`
  try {
    const createdAt = await ctx.db.transaction().execute(async (trx) => {
      const row = await trx
        .insertInto('ip_assignments')
        .values({
          id,
          app_id: app.id,
          type: want.type,
          // Until its number is known the id stands in: no address looks like it.
          address: want.type === 'shared_v4' ? sharedIpv4 : id,
          region: want.region,
          service_name: want.service,
        })
        .returning(['number', 'created_at'])
        .executeTakeFirstOrThrow()
      if (want.type !== 'shared_v4') {
        const address = addressOf(want, row.number)
        await trx.updateTable('ip_assignments').set({ address }).where('id', '=', id).execute()
      }
      return row.created_at
    })
    const made = (await listAddresses(ctx, app)).find((one) => one.id === id)
    if (!made) throw new Fault('internal', `address ${id} of ${createdAt.toISOString()} vanished`)
    return made
  } catch (error) {
    if (want.type !== 'shared_v4' || !isUniqueViolation(error)) throw error
    const made = (await listAddresses(ctx, app)).find((one) => one.type === 'shared_v4')
    if (!made) throw error
    return made
  }
}

/** PRX-70: flycast addresses lie in `fdaa:<network>:0:1::N`. */
function addressOf(want: { type: IpType; network: number }, number: number): string {
  const pair = (n: number) =>
    `${Math.floor(n / 0x10000).toString(16)}:${(n % 0x10000).toString(16)}`
  const last = number < 0x10000 ? number.toString(16) : pair(number)
  if (want.type === 'private_v6') return `fdaa:${pair(want.network)}:0:1::${last}`
  return `${dedicatedPrefix}:7200:${pair(number)}::1`
}

/** Fault `not_found`. */
export async function releaseAddress(ctx: Store, app: AppRecord, address: string): Promise<void> {
  const result = await ctx.db
    .deleteFrom('ip_assignments')
    .where('app_id', '=', app.id)
    .where((eb) => eb.or([eb('address', '=', address), eb('id', '=', address)]))
    .executeTakeFirst()
  if (result.numDeletedRows > 0n) return
  throw new Fault('not_found', `app ${app.name} has no address ${address}`)
}
