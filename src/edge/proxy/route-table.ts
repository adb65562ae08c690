import { isIPv4 } from 'node:net'
import { appNameSchema } from '#spec/app.ts'
import type { MachineRow } from '#spec/roster.ts'
import type { Logger } from '#sys/log.ts'
import { routesOf, type Pool, type Routes } from './routes.ts'
import type { RowTable } from './row-table.ts'

/** The rows and the routes that follow from them, kept app by app. */
export interface RouteTable {
  /** Takes a row in when it is newer than the one known. */
  put(row: MachineRow): void
  forget(gone: { host: string; id: string }): void
  onChange(callback: (app: string) => void): void
  apps(): Iterable<string>
  rowsOf(app: string): MachineRow[]
  row(id: string): MachineRow | undefined
  routes(): Iterable<Routes>
  routesOf(app: string): Routes | undefined
  pools(): Iterable<Pool>
  pool(key: string): Pool | undefined
  /** The pool that a host name leads to at that door. */
  poolOfHost(host: string, door: 'http' | 'https'): Pool | undefined
  hostOfApp(app: string): string
  appOfHost(host: string): string | undefined
}

export function openRouteTable(options: {
  rows: RowTable
  domain: string
  log: Logger
}): RouteTable {
  const { rows, domain, log } = options
  const routes = new Map<string, Routes>()
  const warned = new Set<string>()
  let changed: (app: string) => void = () => {}
  const suffix = `.${domain}`

  const plan = (app: string) => {
    const ofApp = rows.ofApp(app)
    if (ofApp.length === 0) routes.delete(app)
    else routes.set(app, routesOf(ofApp, { domain }))
    for (const what of routes.get(app)?.unsupported ?? []) warnOnce(what)
  }
  const warnOnce = (what: string) => {
    if (warned.has(what)) return
    warned.add(what)
    log.warn(`${what} is not carried by the edge yet: only HTTP on 80 and 443 is`)
  }
  const touch = (app: string) => {
    plan(app)
    changed(app)
  }
  const table: RouteTable = {
    put(row) {
      const why = unfit(row)
      if (why !== undefined) {
        log.error({ host: row.host }, `skipped a roster row: ${why}`)
        return
      }
      const before = rows.get(row.id)
      if (!rows.put(row)) return
      if (before && before.app !== row.app) touch(before.app)
      touch(row.app)
    },
    forget(gone) {
      const app = rows.forget(gone)
      if (app !== undefined) touch(app)
    },
    onChange(callback) {
      changed = callback
    },
    apps: () => rows.apps(),
    rowsOf: (app) => rows.ofApp(app),
    row: (id) => rows.get(id),
    routes: () => routes.values(),
    routesOf: (app) => routes.get(app),
    pools: () => [...routes.values()].flatMap((ofApp) => [...ofApp.pools.values()]),
    pool: (key) => routes.get(key.split(':', 1)[0]!)?.pools.get(key),
    poolOfHost(host, door) {
      const app = table.appOfHost(host)
      const ofApp = app === undefined ? undefined : routes.get(app)
      const key = ofApp?.[door].get(`${app}${suffix}`)
      return key === undefined ? undefined : ofApp?.pools.get(key)
    },
    hostOfApp: (app) => `${app}${suffix}`,
    appOfHost(host) {
      const name = host.toLowerCase()
      return name.endsWith(suffix) ? name.slice(0, -suffix.length) : undefined
    },
  }
  for (const app of rows.apps()) plan(app)
  return table
}

/** What reaches HAProxy's command line is checked here, so that no row can say more than it should. */
function unfit(row: MachineRow): string | undefined {
  if (!appNameSchema.safeParse(row.app).success) return `its app "${row.app}" is no app name`
  if (!/^[A-Za-z0-9_-]{1,64}$/.test(row.id)) return `its id "${row.id}" is no machine id`
  return isIPv4(row.ip4) ? undefined : `its address "${row.ip4}" is no IPv4 address`
}
