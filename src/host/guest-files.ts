import { readTextFile } from '#sys/files.ts'

/** MCH-95: the whole of a machine's /etc/hosts. */
export function hostsFile(machine: { hostname: string; ip4: string; ip6: string }): string {
  return [
    '127.0.0.1 localhost',
    '::1 localhost ip6-localhost ip6-loopback',
    'fe00::0 ip6-localnet',
    'ff02::1 ip6-allnodes',
    'ff02::2 ip6-allrouters',
    `${machine.ip6} fly-local-6pn`,
    `${machine.ip4} fly-global-services`,
    `${machine.ip6} ${machine.hostname}`,
    '',
  ].join('\n')
}

// The second is where systemd's resolver keeps the real servers behind its own loopback address.
const sources = ['/etc/resolv.conf', '/run/systemd/resolve/resolv.conf']
const serversMax = 3

function isLoopback(address: string): boolean {
  return address.startsWith('127.') || address === '::1' || address === '0.0.0.0'
}

/**
 * A machine's /etc/resolv.conf: the host's own servers that can be reached from another network namespace. Empty of
 * servers when the host has none.
 */
export function resolvConf(read: (path: string) => string | undefined = readTextFile): string {
  for (const source of sources) {
    const lines = (read(source) ?? '').split('\n').map((line) => line.trim().split(/\s+/))
    const servers = lines
      .filter(([key, value]) => key === 'nameserver' && value && !isLoopback(value))
      .map(([, value]) => value)
    if (servers.length === 0) continue
    const search = lines.find(([key]) => key === 'search')
    return [
      ...servers.slice(0, serversMax).map((server) => `nameserver ${server}`),
      ...(search ? [search.join(' ')] : []),
      '',
    ].join('\n')
  }
  return ''
}
