import { Fault } from '#core/fault.ts'
import type { HostRow } from '#spec/roster.ts'
import type { VolumeInput } from '#spec/volume.ts'
import { place, type Demand } from '../schedule/index.ts'

export interface ZoneDemand {
  hosts: readonly HostRow[]
  now: number
  /** Preferences, best first. */
  regions: readonly string[]
  /** The machine that will mount it must fit beside it (VOL-7). */
  guest: Demand['guest']
  input: Pick<VolumeInput, 'name' | 'require_unique_zone' | 'unique_zone_app_wide'>
  /** Where the app's volumes are. */
  volumes: readonly { host_id: string; name: string }[]
  /** The host of the volume that is forked: the copy goes elsewhere when it can. */
  sourceHost?: string | undefined
}

/**
 * The host of a new volume. VOL-6: one without a volume of the app and the name; with `unique_zone_app_wide`, without any
 * volume of the app.
 *
 * When every live host of the region has one already, `unique_zone_app_wide`, which no client sends by itself, is refused.
 * `require_unique_zone` is then a preference: clients send `true` with nearly every volume, asked or not, and a second
 * volume or machine would be impossible on one host, a third on two. While a host without one is up but full it is
 * refused: room can be made there. Fault `insufficient_capacity`. Pure.
 */
export function chooseZone(demand: ZoneDemand): HostRow {
  const { input, hosts } = demand
  const unique = input.require_unique_zone !== false
  const wide = unique && input.unique_zone_app_wide === true
  const rivals = demand.volumes.filter((one) => wide || one.name === input.name)
  const taken = new Set(rivals.map((one) => one.host_id))
  if (demand.sourceHost !== undefined) taken.add(demand.sourceHost)
  const others = hosts.filter((row) => !taken.has(row.host))
  let error = ''
  for (const region of demand.regions) {
    const inRegion = { ...demand, regions: [region] }
    const elsewhere = tryHosts(inRegion, others)
    if (typeof elsewhere !== 'string') return elsewhere
    const anywhere = tryHosts(inRegion, hosts)
    const full = hasHost(inRegion, others) ? elsewhere : undefined
    if (typeof anywhere === 'string') error = anywhere
    else if (!unique || (!wide && !full)) return anywhere
    else error = noZone(region, { what: wide ? 'volume of the app' : `volume ${input.name}`, full })
  }
  throw new Fault(
    'insufficient_capacity',
    error.replace(prefix, 'could not reserve resource for volume: '),
  )
}

/** What the placement of machines says, which is told of a volume here. */
const prefix = 'could not reserve resource for machine: '

/** The best of these hosts, or why none will do. */
function tryHosts(demand: ZoneDemand, hosts: readonly HostRow[]): HostRow | string {
  const { regions, guest, now, volumes } = demand
  const nearHosts = volumes.map((volume) => volume.host_id)
  const placement = place({ hosts, now, demand: { regions, guest, count: 1, nearHosts } })
  if ('error' in placement) return placement.error
  return hosts.find((row) => row.host === placement.hosts[0]) as HostRow
}

/** Whether one is up in the region, with or without room. */
const hasHost = ({ regions, guest, now }: ZoneDemand, hosts: readonly HostRow[]): boolean =>
  'hosts' in place({ hosts, now, demand: { regions, guest, count: 0 } })

function noZone(
  region: string,
  { what, full }: { what: string; full: string | undefined },
): string {
  const why = full
    ? `a host without a ${what} is full (${full.replace(prefix, '')})`
    : `every host that is up has a ${what}; add a host`
  return `${prefix}insufficient unique zones in region ${region}: ${why}, or let volumes share one: require_unique_zone false`
}
