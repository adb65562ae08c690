import type { Call, Command } from '../command.ts'
import { jsonFlag } from '../flags.ts'
import { say, sayJson } from '../io.ts'
import { apiUrlOf, chosenPort, findToken } from '../place.ts'

const registryPortDefault = 4285

/**
 * Variables that send flyctl here, and keep it from the real one: its statistics, updates and traces. FLY_API_HOSTNAME and
 * FLY_API_TOKEN are what the Machines API's own examples with curl use.
 */
async function runEnv({ io, flags, home }: Call): Promise<number> {
  const api = apiUrlOf({ home, env: io.env })
  const token = findToken({ home, env: io.env, token: flags.text('access-token') })
  const registryPort = chosenPort(home, 'registry') ?? registryPortDefault
  const variables = {
    FLY_API_BASE_URL: api,
    FLY_FLAPS_BASE_URL: api,
    FLY_UIEX_BASE_URL: api,
    FLY_REGISTRY_HOST: `${new URL(api).hostname}:${registryPort}`,
    FLY_API_HOSTNAME: api,
    FLY_ACCESS_TOKEN: token,
    FLY_API_TOKEN: token,
    FLY_SEND_METRICS: '0',
    FLY_NO_UPDATE_CHECK: '1',
    FLY_SYNTHETICS_AGENT: '0',
    FLY_NO_INCIDENTS_CHECK: '1',
    // Its traces carry the token in the clear.
    FLY_TRACE_COLLECTOR_URL: '127.0.0.1',
  }
  if (flags.on('json')) {
    sayJson(io, variables)
    return 0
  }
  for (const [name, value] of Object.entries(variables)) {
    say(io, `export ${name}='${value.replaceAll("'", `'\\''`)}'`)
  }
  return 0
}

export const env: Command = {
  name: 'env',
  summary: 'Print shell exports for flyctl: eval "$(hangar env)"',
  flags: [jsonFlag],
  run: runEnv,
}
