import { existsSync, readFileSync, readdirSync, statSync, writeFileSync } from 'node:fs'
import { Fault, messageOf } from '#core/fault.ts'
import type { Logger } from '#sys/log.ts'
import { run } from '#sys/process.ts'
import { addressingOf, type Addressing } from './addressing.ts'
import { readDropped, type Dropped } from './dropped.ts'
import { enableForwarding, enableIpv6OnNewLinks, settleLink, uplinkMtu } from './kernel-settings.ts'
import { allowNetwork, applyRuleset, dropRuleset } from './ruleset.ts'

/**
 * The network of one host's machines: a namespace and a routed veth each, one packet filter table for all. Every verb
 * may be repeated, and nothing lives in our memory: the kernel's state is the record.
 */
export interface HostNet {
  /** Where `attach` will put the machine: known before it is done. */
  place(request: AttachRequest): Attachment
  /** Idempotent: what is there already and right is kept, so a running machine never notices. */
  attach(request: AttachRequest): Promise<Attachment>
  /** Removes the machine's namespace and link. Nothing to remove is no error. */
  detach(id: string): Promise<void>
  /** Removes what belongs to this host's machines that are not named. */
  keepOnly(ids: readonly string[]): Promise<void>
  /** What the packet filter dropped of machines' packets, since this host process put it into effect. */
  dropped(): Promise<DroppedPackets>
  /** Removes everything of this host. */
  destroyAll(): Promise<void>
}

export interface DroppedPackets extends Omit<Dropped, 'links'> {
  /** All of them by the machine that sent them. */
  machines: Map<string, number>
}

export interface AttachRequest {
  id: string
  /** The number of the machine's network: its /48. */
  network: number
  /** The host's small number for this machine, the same for life; 0 to 65,000. Addresses follow from it. */
  index: number
}

export interface Attachment {
  netnsPath: string
  netnsName: string
  ip4: string
  /** NET-1, in eight groups. */
  ip6: string
}

export interface HostNetOptions {
  hostId: string
  /** The host's part of the private addresses. */
  hostNumber: number
  /** At least a /16, e.g. `10.200.0.0/16`; no other host of this kernel may have it. */
  ipv4Block: string
  log: Logger
}

const netnsDir = '/run/netns'
const linkDir = '/sys/class/net'
/** Both ends of a link are the same on every machine: no address has to be asked for, so the first packet goes at once. */
const hostMac = '02:fa:00:00:00:01'
const machineMac = '02:fa:00:00:00:02'
/** 6PN: all private networks. Nothing else of IPv6 leaves a machine, so programs fall back to IPv4 at once. */
const all6pn = 'fdaa::/16'

/** Prepares the kernel and the packet filter, and adopts the links that are there. */
export async function openHostNet(options: HostNetOptions): Promise<HostNet> {
  const net = new KernelHostNet(options)
  await net.open()
  return net
}

class KernelHostNet implements HostNet {
  readonly #addressing: Addressing
  readonly #log: Logger
  readonly #mtu = uplinkMtu()
  readonly #networks = new Set<number>()

  constructor(options: HostNetOptions) {
    this.#addressing = addressingOf(options)
    this.#log = options.log
  }

  async open(): Promise<void> {
    enableForwarding()
    enableIpv6OnNewLinks()
    const { gateway4, gateway6 } = this.#addressing
    await ipBatch(
      [
        `address replace ${gateway4}/32 dev lo`,
        // Never chosen by itself as a source: only the routes to machines name it.
        `address replace ${gateway6}/128 dev lo nodad preferred_lft 0`,
      ],
      'the host side',
    )
    for (const name of this.#links()) {
      const network = Number(readAlias(name)?.split(' ')[1])
      if (Number.isInteger(network)) this.#networks.add(network)
    }
    await applyRuleset(this.#addressing, [...this.#networks])
  }

  #links(): string[] {
    return readdirSync(linkDir).filter((name) => name.startsWith(this.#addressing.linkPrefix))
  }

  place({ id, network, index }: AttachRequest): Attachment {
    if (!/^[a-z0-9]{1,64}$/.test(id)) throw new Fault('internal', `"${id}" is no machine id`)
    const netnsName = this.#addressing.netnsName(id)
    const ip4 = this.#addressing.ip4(index)
    const ip6 = this.#addressing.ip6(network, index)
    return { netnsPath: `${netnsDir}/${netnsName}`, netnsName, ip4, ip6 }
  }

  async attach(request: AttachRequest): Promise<Attachment> {
    const { id, network, index } = request
    const attachment = this.place(request)
    const { netnsName, ip4, ip6 } = attachment
    const link = this.#addressing.linkName(id)
    if (!this.#networks.has(network)) {
      await allowNetwork(this.#addressing, network)
      this.#networks.add(network)
    }
    // The alias is written last: a link that has it is complete.
    const alias = `${id} ${network} ${index}`
    const present = readAlias(link)
    if (present === alias && isNamespace(attachment.netnsPath)) return attachment
    if (present && !present.startsWith(`${id} `)) {
      throw new Fault('internal', `the link ${link} of machine ${id} is taken by ${present}`)
    }
    await this.detach(id)
    const started = performance.now()
    try {
      await this.#build({ netnsName, link, ip4, ip6 })
      settleLink(link)
      writeFileSync(`${linkDir}/${link}/ifalias`, alias)
    } catch (error) {
      await this.detach(id)
      throw error
    }
    this.#log.debug({ id, ms: Math.round(performance.now() - started) }, 'network attached')
    return attachment
  }

  async #build(names: {
    netnsName: string
    link: string
    ip4: string
    ip6: string
  }): Promise<void> {
    const { netnsName, link, ip4, ip6 } = names
    const { gateway4, gateway6 } = this.#addressing
    const mtu = this.#mtu
    await ipBatch(
      [
        `netns add ${netnsName}`,
        `link add ${link} mtu ${mtu} address ${hostMac} type veth peer name eth0 mtu ${mtu} address ${machineMac} netns ${netnsName}`,
        `link set ${link} addrgenmode none up`,
        `address add fe80::1/64 dev ${link} nodad`,
        `route add ${ip4}/32 dev ${link} src ${gateway4}`,
        `neighbour replace ${ip4} lladdr ${machineMac} dev ${link} nud permanent`,
        `route add ${ip6}/112 dev ${link} src ${gateway6}`,
        `neighbour replace ${ip6} lladdr ${machineMac} dev ${link} nud permanent`,
      ],
      `machine link ${link}`,
    )
    await ipBatch(
      [
        'link set lo up',
        'link set eth0 addrgenmode none up',
        `address add ${ip4}/32 dev eth0`,
        `address add ${ip6}/112 dev eth0 nodad`,
        'address add fe80::2/64 dev eth0 nodad',
        `route add default via ${gateway4} dev eth0 onlink`,
        `neighbour replace ${gateway4} lladdr ${hostMac} dev eth0 nud permanent`,
        `route add ${all6pn} via fe80::1 dev eth0`,
        `neighbour replace fe80::1 lladdr ${hostMac} dev eth0 nud permanent`,
      ],
      `namespace ${netnsName}`,
      netnsName,
    )
  }

  async detach(id: string): Promise<void> {
    await this.#remove(this.#addressing.linkName(id), this.#addressing.netnsName(id))
  }

  async #remove(link: string | undefined, netnsName: string | undefined): Promise<void> {
    const lines: string[] = []
    if (link && existsSync(`${linkDir}/${link}`)) lines.push(`link delete ${link}`)
    if (netnsName && existsSync(`${netnsDir}/${netnsName}`)) lines.push(`netns delete ${netnsName}`)
    if (lines.length === 0) return
    try {
      await ipBatch(lines, `removal of ${netnsName ?? link}`)
    } catch (error) {
      // Somebody else may have removed it meanwhile: what counts is that it is gone.
      const linkLeft = link !== undefined && existsSync(`${linkDir}/${link}`)
      const netnsLeft = netnsName !== undefined && existsSync(`${netnsDir}/${netnsName}`)
      if (linkLeft || netnsLeft) throw error
      this.#log.debug({ error: messageOf(error) }, 'already removed')
    }
  }

  async keepOnly(ids: readonly string[]): Promise<void> {
    const { netnsPrefix } = this.#addressing
    const keptLinks = new Set(ids.map((id) => this.#addressing.linkName(id)))
    const keptNames = new Set(ids.map((id) => this.#addressing.netnsName(id)))
    for (const link of this.#links()) if (!keptLinks.has(link)) await this.#remove(link, undefined)
    const names = existsSync(netnsDir) ? readdirSync(netnsDir) : []
    for (const name of names) {
      // A host `a` must not take `hgr-a-b-…` of a host `a-b` for its own: machine ids have no dash.
      const mine = name.startsWith(netnsPrefix) && !name.slice(netnsPrefix.length).includes('-')
      if (mine && !keptNames.has(name)) await this.#remove(undefined, name)
    }
  }

  async dropped(): Promise<DroppedPackets> {
    const { links, ...counted } = await readDropped(this.#addressing)
    const machines = new Map<string, number>()
    for (const [link, packets] of links) {
      const id = readAlias(link)?.split(' ')[0]
      if (id) machines.set(id, packets)
    }
    return { ...counted, machines }
  }

  async destroyAll(): Promise<void> {
    await this.keepOnly([])
    await dropRuleset(this.#addressing)
    const { gateway4, gateway6 } = this.#addressing
    await ipBatch(
      [`address delete ${gateway4}/32 dev lo`, `address delete ${gateway6}/128 dev lo`],
      'the host side',
      undefined,
      { force: true },
    )
    this.#networks.clear()
  }
}

function readAlias(link: string): string | undefined {
  try {
    return readFileSync(`${linkDir}/${link}/ifalias`, 'utf8').trim()
  } catch {
    return undefined
  }
}

/** A name in /run/netns whose mount is gone is an empty file of the disk below. */
function isNamespace(path: string): boolean {
  try {
    return statSync(path).dev !== statSync(netnsDir).dev
  } catch {
    return false
  }
}

/** Many changes by one process. */
async function ipBatch(
  lines: string[],
  what: string,
  netns?: string,
  options: { force?: boolean } = {},
): Promise<void> {
  const args = [
    ...(netns ? ['-n', netns] : []),
    ...(options.force ? ['-force'] : []),
    '-batch',
    '-',
  ]
  const result = await run('ip', args, { input: `${lines.join('\n')}\n`, timeoutMs: 20_000 })
  if (result.code !== 0 && !options.force) {
    throw new Fault('native_failed', `cannot set up ${what}: ${result.stderr.trim()}`)
  }
}
