import { Fault } from '#core/fault.ts'
import type { CloudConfig } from '#spec/settings.ts'
import type { CloudState, Place } from './state.ts'

type Shape = Pick<CloudConfig, 'regions' | 'hosts_per_region'>

/** The regions that a cloud has, in the order in which they came: the first is where new things go by default. */
export const regionsOfPlaces = (places: readonly Place[]): string[] => [
  ...new Set(places.map((place) => place.region)),
]

export const placeId = (region: string, n: number, cloudId: string): string =>
  `${region}${n}-${cloudId}`

/** Every host of the shape: its id and its region. */
export function wantedPlaces(shape: Shape, cloudId: string): { id: string; region: string }[] {
  return shape.regions.flatMap((region) =>
    Array.from({ length: shape.hosts_per_region }, (_, index) => ({
      id: placeId(region, index + 1, cloudId),
      region,
    })),
  )
}

/**
 * A cloud grows and does not shrink: machines and volumes are on its hosts. Fault `invalid` when the shape leaves one out,
 * with the flags that name them all.
 */
export function requireAllPlaces(kept: CloudState, shape: Shape): void {
  const wanted = new Set(wantedPlaces(shape, kept.cloud_id).map((place) => place.id))
  const missing = kept.places.filter((place) => !wanted.has(place.id))
  if (missing.length === 0) return
  const regions = regionsOfPlaces(kept.places)
  const counts = regions.map((code) => kept.places.filter(({ region }) => region === code).length)
  const all = [...new Set([...regions, ...shape.regions])].join(',')
  throw new Fault(
    'invalid',
    `this would leave out ${missing.map((place) => place.id).join(', ')}, and a cloud cannot shrink: machines and volumes are on its hosts. Write --regions ${all} --hosts-per-region ${Math.max(...counts)} or more; or make another cloud with --home DIR`,
  )
}

/** True when the shape has hosts that the cloud does not have yet. */
export function grows(kept: CloudState, shape: Shape): boolean {
  const known = new Set(kept.places.map((place) => place.id))
  return wantedPlaces(shape, kept.cloud_id).some((place) => !known.has(place.id))
}
