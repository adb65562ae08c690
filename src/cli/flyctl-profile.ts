import type { Call } from './command.ts'
import { apiUrlOf, chosenPort } from './place.ts'

const registryPortDefault = 4285

/**
 * Variables that send flyctl to this cloud, and keep it from calling anybody else: statistics, updates, incidents, traces.
 * The token is not among them.
 */
export function flyctlProfile({ io, home }: Pick<Call, 'io' | 'home'>): Record<string, string> {
  const api = apiUrlOf({ home, env: io.env })
  const registryPort = chosenPort(home, 'registry') ?? registryPortDefault
  return {
    FLY_API_BASE_URL: api,
    FLY_FLAPS_BASE_URL: api,
    FLY_UIEX_BASE_URL: api,
    FLY_REGISTRY_HOST: `${new URL(api).hostname}:${registryPort}`,
    FLY_SEND_METRICS: '0',
    FLY_METRICS_BASE_URL: api,
    FLY_NO_UPDATE_CHECK: '1',
    FLY_SYNTHETICS_AGENT: '0',
    FLY_SYNTHETICS_BASE_URL: api,
    FLY_NO_INCIDENTS_CHECK: '1',
    // Its traces carry the token in the clear.
    FLY_TRACE_COLLECTOR_URL: '127.0.0.1',
  }
}

/** A word for sh, whatever is in it. */
export const shellWord = (text: string): string => `'${text.replaceAll("'", `'\\''`)}'`
