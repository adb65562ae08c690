import { autostartOf, autostopOf, type Autostop, type Service } from '#spec/machine-config.ts'
import type { MachineRow } from '#spec/roster.ts'

/**
 * From the rows of the roster to what HAProxy should have: pure, and the same whatever the order and repetition of the
 * rows. A pool is all machines of one app behind one public port (PRX-5); it takes one slot. An app whose ports 80 and
 * 443 lead to the same services has one pool, any other app two.
 */
export interface Routes {
  pools: Map<string, Pool>
  /** Host name → pool, or `forceHttps` (PRX-11). */
  http: Map<string, string>
  https: Map<string, string>
  /** Services that this edge cannot carry: other ports, raw TCP, UDP. For one warning each. */
  unsupported: string[]
}

export interface Pool {
  key: string
  app: string
  members: Map<string, Member>
}

/** A machine seen through the service that the pool leads to. */
export interface Member {
  row: MachineRow
  internalPort: number
  softLimit: number
  /** Undefined: no limit (PRX-35). */
  hardLimit: number | undefined
  autostart: boolean
  /** May take traffic: started, checks pass, not cordoned (PRX-36). */
  usable: boolean
}

export const forceHttps = 'force_https'
const softLimitDefault = 20

export const emptyRoutes: Routes = {
  pools: new Map(),
  http: new Map(),
  https: new Map(),
  unsupported: [],
}

export interface RouteOptions {
  domain: string
}

export function routesOf(rows: Iterable<MachineRow>, { domain }: RouteOptions): Routes {
  const routes: Routes = { pools: new Map(), http: new Map(), https: new Map(), unsupported: [] }
  const unsupported = new Set<string>()
  for (const [app, ofApp] of byApp(newestRows(rows))) {
    addApp(routes, app, ofApp, domain)
    for (const row of ofApp)
      for (const what of unsupportedOf(row)) unsupported.add(`${app}: ${what}`)
  }
  routes.unsupported = [...unsupported].sort()
  return routes
}

/** The newest row of each machine. A machine that two hosts announce belongs to the one that spoke of it last. */
export function newestRows(rows: Iterable<MachineRow>): MachineRow[] {
  const newest = new Map<string, MachineRow>()
  for (const row of rows) {
    const before = newest.get(row.id)
    if (!before || isNewer(row, before)) newest.set(row.id, row)
  }
  return [...newest.values()].sort((a, b) => (a.id < b.id ? -1 : 1))
}

export function isNewer(row: MachineRow, than: MachineRow): boolean {
  if (row.host === than.host) return row.counter > than.counter
  if (row.changed_at !== than.changed_at) return row.changed_at > than.changed_at
  return row.host > than.host
}

function byApp(rows: MachineRow[]): Map<string, MachineRow[]> {
  const apps = new Map<string, MachineRow[]>()
  for (const row of rows) {
    if (row.state === 'destroyed' || row.state === 'destroying') continue
    const ofApp = apps.get(row.app)
    if (ofApp) ofApp.push(row)
    else apps.set(row.app, [row])
  }
  return apps
}

function addApp(routes: Routes, app: string, rows: MachineRow[], domain: string): void {
  const plain = membersBehind(rows, 80)
  const secure = membersBehind(rows, 443)
  const host = `${app}.${domain}`.toLowerCase()
  const shared = plain.size === 0 || secure.size === 0 || samePorts(plain, secure)
  const securePool = secure.size > 0 ? secure : plain
  if (securePool.size === 0) return
  const plainKey = shared ? app : `${app}:80`
  routes.pools.set(app, { key: app, app, members: securePool })
  if (!shared) routes.pools.set(plainKey, { key: plainKey, app, members: plain })
  if (secure.size > 0) routes.https.set(host, app)
  if (plain.size > 0) routes.http.set(host, forcesHttps(rows) ? forceHttps : plainKey)
}

function samePorts(a: Map<string, Member>, b: Map<string, Member>): boolean {
  if (a.size !== b.size) return false
  for (const [id, member] of a) if (b.get(id)?.internalPort !== member.internalPort) return false
  return true
}

function membersBehind(rows: MachineRow[], publicPort: 80 | 443): Map<string, Member> {
  const members = new Map<string, Member>()
  for (const row of rows) {
    const service = row.services.find((service) => carries(service, publicPort))
    if (service) members.set(row.id, memberOf(row, service))
  }
  return members
}

function memberOf(row: MachineRow, service: Service): Member {
  return {
    row,
    internalPort: service.internal_port,
    softLimit: service.concurrency?.soft_limit || softLimitDefault,
    hardLimit: service.concurrency?.hard_limit || undefined,
    autostart: autostartOf(service),
    usable: row.ready && !row.cordoned && row.state === 'started',
  }
}

/** Port 80 with the http handler, port 443 with tls and http. */
function carries(service: Service, publicPort: 80 | 443): boolean {
  return portEntry(service, publicPort) !== undefined
}

function portEntry(service: Service, publicPort: 80 | 443) {
  if (service.protocol !== 'tcp') return undefined
  return service.ports?.find((entry) => {
    const from = entry.port ?? entry.start_port ?? 0
    const to = entry.port ?? entry.end_port ?? from
    const handlers = entry.handlers ?? []
    const http = handlers.includes('http') || handlers.includes('edge_http')
    return (
      from <= publicPort &&
      publicPort <= to &&
      http &&
      handlers.includes('tls') === (publicPort === 443)
    )
  })
}

/** The newest machine's word decides when machines disagree during a deploy. */
function forcesHttps(rows: MachineRow[]): boolean {
  let newest: { at: number; force: boolean } | undefined
  for (const row of rows) {
    for (const service of row.services) {
      const entry = portEntry(service, 80)
      if (entry && (!newest || row.changed_at > newest.at)) {
        newest = { at: row.changed_at, force: entry.force_https === true }
      }
    }
  }
  return newest?.force ?? false
}

function unsupportedOf(row: MachineRow): string[] {
  const found: string[] = []
  for (const service of row.services) {
    for (const entry of service.ports ?? []) {
      const port = entry.port ?? `${entry.start_port}-${entry.end_port}`
      const known =
        (port === 80 && carries({ ...service, ports: [entry] }, 80)) ||
        (port === 443 && carries({ ...service, ports: [entry] }, 443))
      if (!known) {
        found.push(
          `port ${port} (${service.protocol}, handlers ${(entry.handlers ?? []).join('+') || 'none'})`,
        )
      }
    }
  }
  return found
}

/** CONF-20: the most restrictive of a machine's services keeps it running. */
export function autostopOfMachine(row: MachineRow): Autostop {
  const wishes = row.services.map(autostopOf)
  if (wishes.length === 0 || wishes.includes('off')) return 'off'
  return wishes.includes('stop') ? 'stop' : 'suspend'
}

/** PRX-42. */
export function minMachinesRunning(row: MachineRow): number {
  return Math.max(0, ...row.services.map((service) => service.min_machines_running ?? 0))
}
