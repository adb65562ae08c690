// What children may need from outside: proxies and certificates for pulls, the log level, Node's cache of compiled code.
// All else would be an accident.
const passedOn =
  /^(HOME|TZ|LANG|HANGAR_LOG|(https?|no|all)_proxy|(HTTPS?|NO|ALL)_PROXY|SSL_CERT_(FILE|DIR)|NODE_EXTRA_CA_CERTS|NODE_COMPILE_CACHE|TMPDIR)$/

/** The environment of every process that the cloud starts. */
export function childEnvironment(extra: Record<string, string> = {}): Record<string, string> {
  const kept = Object.entries(process.env).filter(
    (entry): entry is [string, string] => passedOn.test(entry[0]) && entry[1] !== undefined,
  )
  return {
    LANG: 'C.UTF-8',
    ...Object.fromEntries(kept),
    PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
    ...extra,
  }
}
