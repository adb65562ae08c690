import { callJson } from '#sys/http-client.ts'
import { readTextFile } from '#sys/files.ts'
import { messageOf } from '#core/fault.ts'
import type { Home } from './home.ts'
import { readState, type CloudState } from './state.ts'

interface StatusAnswer {
  apps?: number
  hosts?: { id: string; region: string; machines: number; runtime: string; reachable?: boolean }[]
}

/** What a person wants to know once the cloud is up: where it answers, where the token is, what to type next. */
export async function summaryOf(home: Home): Promise<string[]> {
  const state = readState(home)
  if (!state) return []
  const urls = appUrls(state, '<app>')
  return [
    ...(await hostLines(home, state)),
    `  apps answer at   ${urls.join('  and  ')}`,
    `  API              http://127.0.0.1:${state.ports.api}`,
    `  token            ${home.token}`,
    `  local CA         ${home.ca.cert}`,
    '',
    'next:',
    '  hangar launch --now      in a folder with a Dockerfile',
    '  hangar status            what runs',
    '  hangar down              stop everything, keep the data',
  ]
}

/** `http://NAME.hangar.localhost[:port]` and its https twin. */
export function appUrls(state: CloudState, name: string): string[] {
  const { http, https } = state.ports
  const port = (given: number, usual: number) => (given === usual ? '' : `:${given}`)
  return [
    `http://${name}.${state.domain}${port(http, 80)}`,
    `https://${name}.${state.domain}${port(https, 443)}`,
  ]
}

async function hostLines(home: Home, state: CloudState): Promise<string[]> {
  const token = readTextFile(home.token)?.trim() ?? ''
  try {
    const status = await callJson<StatusAnswer>(`http://127.0.0.1:${state.ports.api}`, {
      method: 'GET',
      path: '/api/v1/status',
      headers: { authorization: `Bearer ${token}` },
      timeoutMs: 5_000,
    })
    const hosts = (status.hosts ?? []).map(
      (host) =>
        `  host             ${host.id} in ${host.region}: ${host.machines} machines, ${host.runtime}${host.reachable === false ? ' (unreachable)' : ''}`,
    )
    return [`  apps             ${status.apps ?? 0}`, ...hosts]
  } catch (error) {
    return [`  the API does not tell its status: ${messageOf(error)}`]
  }
}
