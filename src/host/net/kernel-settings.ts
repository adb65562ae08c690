import { existsSync, readFileSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Fault } from '#core/fault.ts'
import { readTextFile } from '#sys/files.ts'

const sysctl = '/proc/sys/net'

function setTo(path: string, value: string): void {
  const file = join(sysctl, path)
  if (readTextFile(file)?.trim() === value) return
  try {
    writeFileSync(file, value)
  } catch (cause) {
    throw new Fault('native_failed', `cannot set ${file} to ${value}; is this root?`, { cause })
  }
}

/**
 * Makes the kernel forward. A host that forwards IPv6 stops listening to router advertisements, and so would lose its
 * own default route: interfaces that listen now are told to listen all the same.
 */
export function enableForwarding(): void {
  setTo('ipv4/ip_forward', '1')
  if (!existsSync(join(sysctl, 'ipv6/conf'))) {
    throw new Fault(
      'native_failed',
      'the kernel has no IPv6; private networks need it (remove ipv6.disable=1)',
    )
  }
  for (const name of readdirSync(join(sysctl, 'ipv6/conf'))) {
    if (name === 'all' || name.startsWith('hg')) continue
    const path = `ipv6/conf/${name}/accept_ra`
    if (readTextFile(join(sysctl, path))?.trim() === '1') setTo(path, '2')
  }
  setTo('ipv6/conf/all/forwarding', '1')
  setTo('ipv6/conf/lo/disable_ipv6', '0')
}

/** Settings of one machine's link on the host's side. */
export function settleLink(link: string): void {
  setTo(`ipv6/conf/${link}/accept_ra`, '0')
  // A question by ARP in another's name is none, and fills no table of neighbours, which all links share.
  setTo(`ipv4/conf/${link}/rp_filter`, '1')
}

/** Before a link is made: IPv6 on new links, also on a host that otherwise does without. */
export function enableIpv6OnNewLinks(): void {
  setTo('ipv6/conf/default/disable_ipv6', '0')
}

/** The largest packet that leaves the host whole; a machine's link has the same. */
export function uplinkMtu(): number {
  const routes = readFileSync('/proc/net/route', 'utf8').split('\n').slice(1)
  const link = routes.map((line) => line.split('\t')).find((row) => row[1] === '00000000')?.[0]
  const mtu = link ? Number(readTextFile(`/sys/class/net/${link}/mtu`)) : 1500
  return Math.min(Math.max(mtu || 1500, 1280), 1500)
}
