import { isFault } from '#core/fault.ts'
import { connectApi } from '../api.ts'
import type { Viewer } from '../apps.ts'
import type { Call, Command } from '../command.ts'
import { jsonFlag } from '../flags.ts'
import { askGraph } from '../graph.ts'
import { complain, say, sayJson } from '../io.ts'
import { forgetLogin, keepLogin, readLogin } from '../login-file.ts'
import { logIn } from '../login.ts'
import { apiUrlOf, findToken } from '../place.ts'

async function runLogin({ io, home }: Call): Promise<number> {
  const api = apiUrlOf({ home, env: io.env })
  const token = await logIn(io, connectApi({ api, token: '' }, io.signal))
  keepLogin(home, { api, token })
  const { email } = await connectApi({ api, token }, io.signal).get<Viewer>('/api/v1/viewer')
  say(io, `successfully logged in as ${email}`)
  warnOfVariables(io)
  return 0
}

function warnOfVariables(io: Call['io']): void {
  for (const name of ['FLY_ACCESS_TOKEN', 'FLY_API_TOKEN']) {
    if (io.env[name]) complain(io, `${name} is set in your environment and is used before a login`)
  }
}

async function runLogout({ io, home }: Call): Promise<number> {
  const api = apiUrlOf({ home, env: io.env })
  const login = readLogin(home, api)
  if (!login) {
    complain(io, `no login is kept in ${home}; nothing to do`)
    warnOfVariables(io)
    return 0
  }
  // Revoked first: a token that is forgotten but good could never be found again.
  try {
    await askGraph(connectApi(login, io.signal), 'mutation { logOut(input: {}) { ok } }')
  } catch (error) {
    // One that is no good any more needs no revoking.
    if (!isFault(error, 'unauthorized')) throw error
  }
  forgetLogin(home)
  say(io, 'logged out')
  warnOfVariables(io)
  return 0
}

async function runWhoami({ io, flags, api }: Call): Promise<number> {
  const { email } = await api().get<Viewer>('/api/v1/viewer')
  if (flags.on('json')) sayJson(io, { email })
  else say(io, email)
  return 0
}

async function runToken({ io, flags, home }: Call): Promise<number> {
  const token = findToken({ home, env: io.env, token: flags.text('access-token') })
  if (flags.on('json')) sayJson(io, { token })
  else say(io, token)
  return 0
}

export const auth: Command = {
  name: 'auth',
  summary: 'Log in and out, and see who you are',
  commands: [
    {
      name: 'login',
      summary: 'Log in by a page of the cloud',
      details:
        'Shows an address; whoever opens it and pastes a token of the cloud allows the login. The token that comes ' +
        'back is kept in the file login.json of the home (mode 0600) and is good for 30 days. The operator of a cloud ' +
        'on this machine needs no login.',
      run: runLogin,
    },
    { name: 'logout', summary: 'Revoke the token of the login and forget it', run: runLogout },
    {
      name: 'whoami',
      summary: 'Show who the token in use belongs to',
      flags: [jsonFlag],
      run: runWhoami,
    },
    {
      name: 'token',
      summary: 'Show the token in use',
      flags: [
        jsonFlag,
        { name: 'quiet', short: 'q', kind: 'switch', summary: 'Accepted', hidden: true },
      ],
      run: runToken,
    },
  ],
}
