import { mkdirSync, readFileSync } from 'node:fs'
import { systemClock } from '#core/clock.ts'
import { createLogger, type Logger } from '#sys/log.ts'
import type { EdgeSettings } from '#spec/settings.ts'
import { connectRoster } from '#roster/index.ts'
import { messageOf } from '#core/fault.ts'
import { ensureLeaf } from './certs/leaf.ts'
import { loadLeaf, startRenewal } from './certs/renewal.ts'
import { startFeed } from './proxy/feed.ts'
import { openAdmin } from './proxy/admin.ts'
import type { ProxyPaths } from './proxy/config.ts'
import { keepHaproxy } from './proxy/haproxy.ts'
import { Router } from './proxy/router.ts'
import { openRouteTable } from './proxy/route-table.ts'
import { openRowTable } from './proxy/row-table.ts'
import { openWords } from './proxy/words.ts'
import { startScaleUp } from './wake/scale-up.ts'
import { startSleep } from './wake/sleep.ts'
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
  const leaf = {
    domain: settings.domain,
    caCertFile: settings.ca_cert_file,
    caKeyFile: settings.ca_key_file,
    leafFile: paths.defaultCert,
    signingFile: paths.signingCa,
  }
  const freshLeaf = await ensureLeaf(leaf)
  const roster = await connectRoster({
    natsUrl: settings.nats_url,
    key,
    name: `edge ${settings.id}`,
    log,
  })
  const admin = openAdmin(paths.adminSocket)
  const rows = openRowTable({ file: `${settings.dir}/last-good.json`, log })
  const streams = openStreams()
  const table = openRouteTable({ rows, domain: settings.domain, log })
  const router: Router = new Router({
    admin,
    table,
    paths,
    slots: settings.slots,
    log,
    onApplied: (row) => words.applied(row),
  })
  const words = openWords({
    edge: settings.id,
    region: settings.region,
    say: (word) => roster.say(word),
    sessions: (row) => router.sessions(row) + streams.sessions(row.id),
  })
  const starter = openStarter({
    key,
    holdMs: settings.hold_ms,
    log,
    onRow: (row) => table.put(row),
  })
  const feed = startFeed({ roster, region: settings.region, table })
  const fd = Number(process.env['HANGAR_WAKER_FD'] ?? Number.NaN)
  const waker = await openWaker({
    table,
    router,
    starter,
    streams,
    fd: Number.isInteger(fd) ? fd : undefined,
    socketPath: settings.waker_socket,
    httpsPort: settings.https_port,
    holdMs: settings.hold_ms,
    known: feed.ready,
    log,
  })
  // A copy on disk may be older than what HAProxy already has: the bus is given the chance to speak first.
  await feed.ready
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
    onUp(how) {
      router.resume()
      if (how === 'adopted' && freshLeaf)
        void loadLeaf(admin, leaf.leafFile).catch((error: unknown) =>
          log.error({ error: messageOf(error) }, 'the new certificate is not in use'),
        )
    },
    onDown: () => router.pause(),
  })
  await router.settled()
  const renewal = startRenewal({ leaf, admin, log })
  const scaleUp = startScaleUp({ table, router, streams, starter, log })
  const sleep = startSleep({
    region: settings.region,
    intervalMs: settings.autostop_interval_ms,
    table,
    router,
    streams,
    starter,
    held: (poolKey) => waker.held(poolKey),
    log,
  })
  log.info(
    { http: settings.http_port, https: settings.https_port, at: systemClock.now() },
    'serving',
  )
  return {
    async close() {
      scaleUp.close()
      sleep.close()
      feed.close()
      renewal.close()
      haproxy.close()
      router.close()
      words.close()
      rows.flush()
      await waker.close()
      await roster.close()
    },
  }
}
