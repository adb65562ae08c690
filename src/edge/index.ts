import { mkdirSync, readFileSync } from 'node:fs'
import { systemClock } from '#core/clock.ts'
import { createLogger, type Logger } from '#sys/log.ts'
import type { MachineRow } from '#spec/roster.ts'
import type { EdgeSettings } from '#spec/settings.ts'
import { connectRoster } from '#roster/index.ts'
import { ensureLeaf } from './certs/leaf.ts'
import { openAdmin } from './proxy/admin.ts'
import type { ProxyPaths } from './proxy/config.ts'
import { keepHaproxy } from './proxy/haproxy.ts'
import { Router } from './proxy/router.ts'
import { openRowTable } from './proxy/row-table.ts'
import { openWords } from './proxy/words.ts'
import { openStarter } from './wake/starter.ts'
import { openStreams } from './wake/stream.ts'
import { openWaker } from './wake/waker.ts'
import packageJson from '../../package.json' with { type: 'json' }

export interface Edge {
  /** Lets go of everything but HAProxy, which goes on serving. */
  close(): Promise<void>
}

/** Paths under the edge's folder; unix socket paths must stay below 100 characters. */
export function proxyPaths(settings: EdgeSettings): ProxyPaths {
  const { dir } = settings
  return {
    config: `${dir}/haproxy.cfg`,
    adminSocket: `${dir}/admin.sock`,
    wakerSocket: settings.waker_socket,
    httpMap: `${dir}/http.map`,
    httpsMap: `${dir}/https.map`,
    ownersMap: `${dir}/owners.map`,
    defaultCert: `${dir}/leaf.pem`,
    signingCa: `${dir}/signing-ca.pem`,
    unknownHtml: `${dir}/unknown.html`,
    unknownJson: `${dir}/unknown.json`,
    brokenHttp: `${dir}/broken.http`,
  }
}

/**
 * Runs an edge: HAProxy, the waker, and what keeps them as the roster says. Resolves once it serves.
 * The waker listens on descriptor HANGAR_WAKER_FD when the parent hands one down, otherwise on `waker_socket`.
 */
export async function runEdge(
  settings: EdgeSettings,
  log: Logger = createLogger(`edge ${settings.id}`),
): Promise<Edge> {
  mkdirSync(settings.dir, { recursive: true, mode: 0o700 })
  const paths = proxyPaths(settings)
  const key = readFileSync(settings.cluster_key_file, 'utf8').trim()
  await ensureLeaf({
    domain: settings.domain,
    caCertFile: settings.ca_cert_file,
    caKeyFile: settings.ca_key_file,
    leafFile: paths.defaultCert,
    signingFile: paths.signingCa,
  })
  const roster = await connectRoster({
    natsUrl: settings.nats_url,
    key,
    name: `edge ${settings.id}`,
    log,
  })
  const admin = openAdmin(paths.adminSocket)
  const rows = openRowTable({ file: `${settings.dir}/last-good.json`, log })
  const streams = openStreams()
  const router: Router = new Router({
    admin,
    rows,
    paths,
    domain: settings.domain,
    slots: settings.slots,
    log,
    onApplied: (row) => words.applied(row),
  })
  const words = openWords({
    edge: settings.id,
    region: settings.region,
    say: (word) => roster.say(word),
    sessions: (machine) => router.sessions(machine) + streams.sessions(machine),
  })
  const starter = openStarter({
    key,
    holdMs: settings.hold_ms,
    log,
    onRow: (row) => router.put(row),
  })
  const fd = Number(process.env['HANGAR_WAKER_FD'] ?? Number.NaN)
  const waker = await openWaker({
    router,
    starter,
    streams,
    fd: Number.isInteger(fd) ? fd : undefined,
    socketPath: settings.waker_socket,
    httpsPort: settings.https_port,
    holdMs: settings.hold_ms,
    log,
  })
  const watcher = roster.watch({
    regions: [settings.region],
    onRow: (row: MachineRow) => router.put(row),
    onForget: (gone) => router.forget(gone),
  })
  // A copy on disk may be older than what HAProxy already has: the bus is given the chance to speak first.
  await watcher.ready
  const haproxy = await keepHaproxy({
    dir: settings.dir,
    admin,
    log,
    config: {
      region: settings.region,
      domain: settings.domain,
      version: packageJson.version,
      httpPort: settings.http_port,
      httpsPort: settings.https_port,
      slots: settings.slots,
      holdMs: settings.hold_ms,
      paths,
    },
    maps: () => router.plannedMaps(),
    onUp: () => router.resume(),
    onDown: () => router.pause(),
  })
  await router.settled()
  log.info(
    { http: settings.http_port, https: settings.https_port, at: systemClock.now() },
    'serving',
  )
  return {
    async close() {
      watcher.close()
      haproxy.close()
      router.close()
      words.close()
      rows.flush()
      await waker.close()
      await roster.close()
    },
  }
}
