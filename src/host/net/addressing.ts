import { createHash } from 'node:crypto'
import { ipv4FromNumber, ipv4ToNumber, machine6pn } from '#core/addresses.ts'
import { Fault } from '#core/fault.ts'

/** The names and addresses of one host's machines: all follow from the host, the machine's id and its index. */
export interface Addressing {
  hostId: string
  table: string
  /** Every link of this host begins with this, no link of another host does. */
  linkPrefix: string
  netnsPrefix: string
  block: string
  /** The host as its machines see it: their gateway, and where the edge's connections come from. */
  gateway4: string
  gateway6: string
  netnsName(id: string): string
  linkName(id: string): string
  ip4(index: number): string
  ip6(network: number, index: number): string
}

/** Any Hangar host's links on this kernel, for rules that mean machines in general. */
export const anyLink = 'hg*'

/** The same on every link, in eight groups where it is the host's; a guest's kernel makes the second from its hardware's. */
export const hostLinkLocal = 'fe80:0:0:0:0:0:0:1'
export const machineLinkLocals = ['fe80::2', 'fe80::fa:ff:fe00:2'] as const

function shortHash(text: string, length: number): string {
  const digest = createHash('sha256').update(text).digest().readBigUInt64BE(0)
  return digest.toString(36).padStart(13, '0').slice(-length)
}

/** A link's name has at most 15 characters: `hg`, 6 for the host, 7 for the machine. */
export function addressingOf(options: {
  hostId: string
  hostNumber: number
  ipv4Block: string
}): Addressing {
  const { hostId, hostNumber, ipv4Block } = options
  const [base = '', bits = ''] = ipv4Block.split('/')
  const size = 2 ** (32 - Number(bits))
  const first = ipv4ToNumber(base)
  if (!/^\d{1,3}(\.\d{1,3}){3}\/\d{1,2}$/.test(ipv4Block) || !(size >= 8) || first % size !== 0) {
    throw new Fault('bad_request', `"${ipv4Block}" is not an IPv4 block such as 10.200.0.0/16`)
  }
  const linkPrefix = `hg${shortHash(hostId, 6)}`
  const netnsPrefix = `hgr-${hostId}-`
  return {
    hostId,
    table: `hangar-${hostId}`,
    linkPrefix,
    netnsPrefix,
    block: ipv4Block,
    gateway4: ipv4FromNumber(first + 1),
    gateway6: machine6pn(0, hostNumber, 0),
    netnsName: (id) => netnsPrefix + id,
    linkName: (id) => linkPrefix + shortHash(id, 7),
    ip4: (index) => {
      if (!Number.isInteger(index) || index < 0 || index >= size - 3) {
        throw new Fault('internal', `no address for machine ${index} in ${ipv4Block}`)
      }
      return ipv4FromNumber(first + 2 + index)
    },
    // Machine 0 of a host is the host itself.
    ip6: (network, index) => machine6pn(network, hostNumber, index + 1),
  }
}
