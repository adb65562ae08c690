import { Fault } from '#core/fault.ts'
import type { Region } from '#spec/regions.ts'
import type { Api } from './api.ts'

export interface PlatformRegions {
  Regions: (Region & { deprecated?: boolean })[]
  Nearest?: string
}

export const platformRegions = (api: Api): Promise<PlatformRegions> =>
  api.get<PlatformRegions>('/v1/platform/regions')

/** REG-5. */
export async function nearestRegion(api: Api): Promise<string> {
  const { Regions, Nearest } = await platformRegions(api)
  const code = Nearest || Regions[0]?.code
  if (code) return code
  throw new Fault('not_found', 'the cloud has no region; see: hangar status')
}
