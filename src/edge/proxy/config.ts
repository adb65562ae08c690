/**
 * The one configuration of HAProxy, complete before it starts: every slot is declared, so that an app that comes, moves
 * or goes changes maps and servers over the admin socket and never needs a reload.
 */
export interface ProxyConfig {
  region: string
  /** Not used by HAProxy itself: with another domain or authority it is replaced, like with any other difference. */
  domain: string
  authority: string
  version: string
  httpPort: number
  httpsPort: number
  /** On 127.0.0.1. */
  wakerPort: number
  /** The machine speaks IPv6; binding to it fails where it does not. */
  ipv6: boolean
  slots: number
  holdMs: number
  paths: ProxyPaths
}

export interface ProxyPaths {
  config: string
  adminSocket: string
  /** Host → backend, one map for each front door. */
  httpMap: string
  httpsMap: string
  /** Slot → the pool that owns it; read back when an edge adopts a running HAProxy. */
  ownersMap: string
  defaultCert: string
  signingCa: string
  unknownHtml: string
  unknownJson: string
  brokenHttp: string
}

/** The backend that answers force_https. */
export const forceHttpsBackend = 'force_https'
export const slotName = (index: number): string => `slot${index}`
const slotIdBase = 1000
/** The numeric id HAProxy knows the slot by. */
export const slotId = (index: number): number => slotIdBase + index
export const wakerServer = 'waker'
/** Set by the waker on an answer that asks HAProxy to send the request again. */
export const replayStatus = 425
export const replayHeader = 'x-hangar-replay'

/** PRX-15. */
const headersReadMs = 60_000
const idleMs = 600_000
const connectMs = 2_000
/** PRX-37 allows 90; a machine that refuses ten times in a row is down for this request. */
const retries = 10

export function proxyConfigText(config: ProxyConfig): string {
  return [
    globalSection(config),
    frontend(config, 'http'),
    frontend(config, 'https'),
    answers(config),
    slotDefaults(config),
    ...Array.from({ length: config.slots }, (_, index) => slotSection(index, config)),
    '',
  ].join('\n')
}

function globalSection({ domain, authority, paths }: ProxyConfig): string {
  return `# ${domain}, certificates by ${authority}
global
  # Who it is once its ports are bound and its files are read: what breaks into it owns nothing.
  user haproxy
  group haproxy
  stats socket ${paths.adminSocket} mode 600 level admin expose-fd listeners
  stats timeout 1m
  log stdout format raw local0 notice
  fd-hard-limit 200000
  tune.maxrewrite 2048
  # A replaced HAProxy finishes what it has; PRX-48.
  hard-stop-after 10m
  # WebSockets come over HTTP/1.1: one tunnelled in HTTP/2 could not be replayed to a woken machine.
  h2-workaround-bogus-websocket-clients
  # PRX-10
  ssl-default-bind-options ssl-min-ver TLSv1.2 no-tls-tickets
  ssl-default-bind-ciphers ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305

defaults base
  mode http
  timeout connect ${connectMs}
  timeout http-request ${headersReadMs}
  timeout client ${idleMs}
  timeout server ${idleMs}
  timeout http-keep-alive ${idleMs}
  timeout tunnel ${idleMs}
  timeout client-fin 30s
  # Nobody waits for what a request that is sent again would do, and what ended the last machine may end the next.
  option abortonclose
  timeout server-fin 30s
  errorfile 503 ${paths.brokenHttp}
`
}

/** PRX §3.3 and PRX-20, and the way from a host name to a slot. */
function frontend(
  { region, version, httpPort, httpsPort, ipv6, paths }: ProxyConfig,
  door: 'http' | 'https',
): string {
  const [port, map] = door === 'http' ? [httpPort, paths.httpMap] : [httpsPort, paths.httpsMap]
  const tls =
    door === 'https'
      ? ` ssl crt ${paths.defaultCert} generate-certificates ca-sign-file ${paths.signingCa} alpn h2,http/1.1`
      : ''
  return `frontend ${door} from base
  bind 0.0.0.0:${port}${tls}${ipv6 ? `\n  bind [::]:${port} v6only${tls}` : ''}
  unique-id-format %[date(0,ms),bytes(2,6),hex]%[rand,bytes(4,4),hex]%[rand,bytes(5,3),hex]-${region}
  http-request del-header fly-replay- -m beg
  http-request del-header fly-preferred-instance-unavailable
  http-request set-header fly-client-ip %[src]
  http-request set-header fly-forwarded-port %[dst_port]
  http-request set-header fly-region ${region}
  http-request set-header fly-request-id %[unique-id]
  http-request set-header x-forwarded-for "%[req.fhdr(x-forwarded-for)], %[src], %[dst]" if { req.hdr(x-forwarded-for) -m found }
  http-request set-header x-forwarded-for "%[src], %[dst]" unless { req.hdr(x-forwarded-for) -m found }
  http-request set-header x-forwarded-proto ${door}
  http-request set-header x-forwarded-port %[dst_port] unless { req.hdr(x-forwarded-port) -m found }
  http-request set-header x-forwarded-ssl ${door === 'https' ? 'on' : 'off'}
  http-request add-header via "2 fly.io" if { fc_http_major 2 }
  http-request add-header via "1.1 fly.io" unless { fc_http_major 2 }
  http-response set-header server "Fly/${version}"
  http-response add-header via "2 fly.io" if { fc_http_major 2 }
  http-response add-header via "1.1 fly.io" unless { fc_http_major 2 }
  http-response set-header fly-request-id %[unique-id]
  # A name that is in no map names no backend, and falls to the default.
  use_backend %[req.hdr(host),host_only,lower,map_str(${map})]
  default_backend unknown
`
}

const hostVariable = 'http-request set-var(txn.host) req.hdr(host),host_only,lower'

/** What HAProxy says by itself, with no process of ours alive. */
function answers({ httpsPort, paths }: ProxyConfig): string {
  const port = httpsPort === 443 ? '' : `:${httpsPort}`
  return `backend ${forceHttpsBackend} from base
  # PRX-11
  ${hostVariable}
  http-request redirect location https://%[var(txn.host)]${port}%[pathq] code 301

backend unknown from base
  ${hostVariable}
  http-request set-var(txn.shown) 'var(txn.host),regsub("[^a-z0-9.-]",,g)'
  http-request set-var(txn.app) var(txn.shown),field(1,.)
  http-request return status 404 content-type "text/html; charset=utf-8" lf-file ${paths.unknownHtml} if { req.hdr(accept) -m sub text/html }
  http-request return status 404 content-type application/json lf-file ${paths.unknownJson}
  # Never reached: it makes HAProxy keep the map of the slots' owners.
  http-request set-var(txn.owner) str(none),map_str(${paths.ownersMap})
`
}

function slotDefaults({ holdMs }: ProxyConfig): string {
  return `defaults slots from base
  balance leastconn
  # PRX-34
  timeout queue ${holdMs}
  retries ${retries}
  option redispatch 1
  retry-on conn-failure empty-response ${replayStatus}
`
}

/**
 * A request that may have changed something at a machine is never sent twice (PRX-37): for it only a failed connect is
 * retried. The others are replayed when the connection ends without an answer, and when the waker asks for it.
 */
function slotSection(index: number, { wakerPort }: ProxyConfig): string {
  return `backend ${slotName(index)} from slots
  id ${slotId(index)}
  http-request disable-l7-retry if !METH_GET !{ method HEAD OPTIONS DELETE PUT TRACE }
  http-response set-status 503 if { status ${replayStatus} } { res.hdr(${replayHeader}) -m found }
  server ${wakerServer} 127.0.0.1:${wakerPort} backup pool-max-conn 0`
}
