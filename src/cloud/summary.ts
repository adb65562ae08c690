import type { HostInfo } from '#spec/host-api.ts'
import { callJson } from '#sys/http-client.ts'
import { readTextFile } from '#sys/files.ts'
import { messageOf } from '#core/fault.ts'
import type { Home } from './home.ts'
import { regionsOfPlaces } from './shape.ts'
import { readState, type CloudState } from './state.ts'

interface StatusAnswer {
  apps?: number
  hosts?: (HostInfo & { reachable?: boolean })[]
}

/** What a person wants to know once the cloud is up: where it answers, where the token is, what to type next. */
export async function summaryOf(home: Home): Promise<string[]> {
  const state = readState(home)
  if (!state) return []
  return [
    ...(await hostLines(home, state)),
    ...regionsOfPlaces(state.places).map((region, index) => {
      const urls = appUrls(state, '<app>', region)
      // Which edge a user meets is a matter of the network; on one machine it is a matter of the port.
      const where = index === 0 ? 'apps answer at' : `those in ${region}`
      return `  ${where.padEnd(16)} ${urls.join('  and  ')}`
    }),
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

/** `http://NAME.hangar.localhost[:port]` and its https twin, at the first edge of the region. */
function appUrls(state: CloudState, name: string, region: string): string[] {
  const place = state.places.find((one) => one.region === region)
  const { http_port: http, https_port: https } = place ?? { http_port: 0, https_port: 0 }
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
    const hosts = status.hosts ?? []
    const lines = hosts.map(
      (host) =>
        `  host             ${host.id} in ${host.region}: ${host.machines} machines, ${host.runtime}${host.reachable === false ? ' (unreachable)' : ''}`,
    )
    const notes = new Set(hosts.map((host) => host.runtime_note).filter(Boolean))
    return [
      `  apps             ${status.apps ?? 0}`,
      ...lines,
      ...[...notes].map((note) => `  runtime          ${note}`),
    ]
  } catch (error) {
    return [`  the API does not tell its status: ${messageOf(error)}`]
  }
}
