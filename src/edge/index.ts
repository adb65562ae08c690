import { X509Certificate } from 'node:crypto'
import { existsSync, mkdirSync, readFileSync } from 'node:fs'
import { messageOf } from '#core/fault.ts'
import { createLogger, type Logger } from '#sys/log.ts'
import type { MachineRow } from '#spec/roster.ts'
import type { EdgeSettings } from '#spec/settings.ts'
import { connectRoster } from '#roster/index.ts'
import { ensureLeaf, type LeafOptions } from './certs/leaf.ts'
import { loadLeaf, startRenewal } from './certs/renewal.ts'
import { openAdmin, type Admin } from './proxy/admin.ts'
import type { ProxyConfig, ProxyPaths } from './proxy/config.ts'
import { startFeed } from './proxy/feed.ts'
import { keepHaproxy, type Haproxy } from './proxy/haproxy.ts'
import { openRouteTable } from './proxy/route-table.ts'
import { Router } from './proxy/router.ts'
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

/**
 * Runs an edge: HAProxy, the waker, and what keeps them as the roster says. Resolves once it serves; HAProxy's own words
 * are in the Fault when it cannot start. HAProxy's record is `<dir>/haproxy.json`; it outlives this process.
 * The waker listens on descriptor HANGAR_WAKER_FD when the parent hands one down, otherwise on `waker_port`.
 */
export async function runEdge(
  settings: EdgeSettings,
  log: Logger = createLogger(`edge ${settings.id}`),
): Promise<Edge> {
  mkdirSync(settings.dir, { recursive: true, mode: 0o700 })
  const { id, region, domain, hold_ms: holdMs } = settings
  const paths = pathsOf(settings)
  const leaf = leafOf(settings, paths)
  const freshLeaf = await ensureLeaf(leaf)
  const key = readFileSync(settings.cluster_key_file, 'utf8').trim()
  const roster = await connectRoster({ natsUrl: settings.nats_url, key, name: `edge ${id}`, log })

  const admin = openAdmin(paths.adminSocket)
  const rows = openRowTable({ file: `${settings.dir}/last-good.json`, log })
  const table = openRouteTable({ rows, domain, log })
  const streams = openStreams()
  const { slots } = settings
  const onApplied = (row: MachineRow) => words.applied(row)
  const router: Router = new Router({ admin, table, paths, slots, log, onApplied })
  const words = openWords({
    edge: id,
    region,
    say: (word) => roster.say(word),
    sessions: (row) => router.sessions(row) + streams.sessions(row.id),
  })
  const feed = startFeed({ roster, region, table })

  const starter = openStarter({ key, holdMs, log, onRow: (row) => table.put(row) })
  const waking = { table, router, streams, starter, log }
  const waker = await openWaker({
    ...waking,
    fd: inheritedFd(),
    port: settings.waker_port,
    httpsPort: settings.https_port,
    holdMs,
    silent: (host) => feed.silent(host),
    known: feed.ready,
  })
  // A copy on disk may be older than what HAProxy already has: the bus is given the chance to speak first.
  await feed.ready
  const haproxy = await startProxy({ settings, paths, admin, router, log, leaf, freshLeaf })
  await router.settled()
  log.info({ http: settings.http_port, https: settings.https_port }, 'serving')
  const loops = [
    startRenewal({ leaf, admin, log }),
    startScaleUp(waking),
    startSleep({
      ...waking,
      region,
      intervalMs: settings.autostop_interval_ms,
      held: (poolKey) => waker.held(poolKey),
    }),
    feed,
    haproxy,
    router,
    words,
  ]
  return {
    async close() {
      for (const loop of loops) loop.close()
      rows.flush()
      await waker.close()
      await roster.close()
    },
  }
}

async function startProxy(options: {
  settings: EdgeSettings
  paths: ProxyPaths
  admin: Admin
  router: Router
  log: Logger
  leaf: LeafOptions
  freshLeaf: boolean
}): Promise<Haproxy> {
  const { settings, paths, admin, router, log, leaf, freshLeaf } = options
  return await keepHaproxy({
    dir: settings.dir,
    config: proxyConfigOf(settings, paths),
    admin,
    log,
    maps: () => router.plannedMaps(),
    onUp(how) {
      router.resume()
      if (how === 'started' || !freshLeaf) return
      loadLeaf(admin, leaf.leafFile).catch((error: unknown) =>
        log.error({ error: messageOf(error) }, 'the new certificate is not in use'),
      )
    },
    onDown: () => router.pause(),
  })
}

function inheritedFd(): number | undefined {
  const text = process.env['HANGAR_WAKER_FD']
  return text === undefined ? undefined : Number(text)
}

/** Unix socket paths must stay below 100 characters. */
function pathsOf({ dir }: EdgeSettings): ProxyPaths {
  return {
    config: `${dir}/haproxy.cfg`,
    adminSocket: `${dir}/admin.sock`,
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

function leafOf(settings: EdgeSettings, paths: ProxyPaths): LeafOptions {
  return {
    domain: settings.domain,
    caCertFile: settings.ca_cert_file,
    caKeyFile: settings.ca_key_file,
    leafFile: paths.defaultCert,
    signingFile: paths.signingCa,
  }
}

function proxyConfigOf(settings: EdgeSettings, paths: ProxyPaths): ProxyConfig {
  return {
    region: settings.region,
    domain: settings.domain,
    authority: new X509Certificate(readFileSync(settings.ca_cert_file)).fingerprint256,
    version: packageJson.version,
    httpPort: settings.http_port,
    httpsPort: settings.https_port,
    wakerPort: settings.waker_port,
    ipv6: existsSync('/proc/net/if_inet6'),
    slots: settings.slots,
    holdMs: settings.hold_ms,
    paths,
  }
}
