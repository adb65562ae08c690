import { join } from 'node:path'
import { Fault } from '#core/fault.ts'
import { readJsonFile, readTextFile } from '#sys/files.ts'
import { readLogin } from './login-file.ts'

/** Where the cloud answers and with which token we speak. */
export interface Place {
  /** `http://127.0.0.1:4280`, without a trailing slash. */
  api: string
  token: string
}

export interface PlaceInput {
  home: string
  env: Record<string, string | undefined>
  /** `--access-token`. */
  token?: string | undefined
}

const defaultHome = '/var/lib/hangar'
/** The port a cloud takes when it is free. */
const defaultApiPort = 4280

/** `--home`, HANGAR_HOME, or the usual folder. */
export function homeOf(flag: string | undefined, env: PlaceInput['env']): string {
  return flag ?? env['HANGAR_HOME'] ?? defaultHome
}

/** FLY_FLAPS_BASE_URL, HANGAR_API, the port in the cloud's own state.json, then the usual port. */
export function apiUrlOf({ home, env }: Pick<PlaceInput, 'home' | 'env'>): string {
  const named = env['FLY_FLAPS_BASE_URL'] || env['HANGAR_API']
  if (named) {
    const url = URL.parse(named)
    if (!url || (url.protocol !== 'http:' && url.protocol !== 'https:')) {
      throw new Fault(
        'bad_request',
        `FLY_FLAPS_BASE_URL or HANGAR_API is "${named}"; write it like http://127.0.0.1:4280`,
      )
    }
    return url.origin
  }
  return `http://127.0.0.1:${chosenPort(home, 'api') ?? defaultApiPort}`
}

/** A port that the cloud of this home chose, from its state.json. */
export function chosenPort(home: string, name: string): number | undefined {
  const state = readJsonFile(join(home, 'state.json')) as
    | { ports?: Record<string, unknown> }
    | undefined
  const port = state?.ports?.[name]
  return typeof port === 'number' ? port : undefined
}

/** The token: flag, FLY_ACCESS_TOKEN, FLY_API_TOKEN, the kept login, then `$HANGAR_HOME/token`. SEC-21. */
export function findToken({ home, env, token }: PlaceInput): string {
  const named = token || env['FLY_ACCESS_TOKEN'] || env['FLY_API_TOKEN']
  if (named) return named.replace(/^(bearer|flyv1)\s+/i, '').trim()
  const login = readLogin(home, apiUrlOf({ home, env }))
  if (login) return login.token
  const file = join(home, 'token')
  let kept: string | undefined
  try {
    kept = readTextFile(file)?.trim()
  } catch (cause) {
    throw new Fault(
      'unauthorized',
      `cannot read ${file}: run as the user who started the cloud, or set FLY_ACCESS_TOKEN`,
      { cause },
    )
  }
  if (!kept) {
    throw new Fault(
      'unauthorized',
      `no access token: ${file} is missing. Start the cloud with: hangar up (or log in to another with: hangar auth login, set FLY_ACCESS_TOKEN, or --home)`,
    )
  }
  return kept
}
