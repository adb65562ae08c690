import type { Call, Command } from '../command.ts'
import { jsonFlag } from '../flags.ts'
import { flyctlProfile, shellWord } from '../flyctl-profile.ts'
import { say, sayJson } from '../io.ts'
import { apiUrlOf, findToken } from '../place.ts'

async function runEnv(call: Call): Promise<number> {
  const { io, flags, home } = call
  const token = findToken({ home, env: io.env, token: flags.text('access-token') })
  const variables = {
    ...flyctlProfile(call),
    FLY_ACCESS_TOKEN: token,
    // These two are what the Machines API's own examples with curl use.
    FLY_API_HOSTNAME: apiUrlOf({ home, env: io.env }),
    FLY_API_TOKEN: token,
  }
  if (flags.on('json')) {
    sayJson(io, variables)
    return 0
  }
  for (const [name, value] of Object.entries(variables)) {
    say(io, `export ${name}=${shellWord(value)}`)
  }
  return 0
}

export const env: Command = {
  name: 'env',
  summary: 'Print shell exports for flyctl: eval "$(hangar env)"',
  flags: [jsonFlag],
  run: runEnv,
}
