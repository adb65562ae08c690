import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { basename } from 'node:path'
import { z } from 'zod'
import { Fault } from '#core/fault.ts'
import { run, runOk } from '#sys/process.ts'

const link = 'eth0'
export const tap = 'tap0'
const table = 'hangar-vm'

const linkSchema = z.array(
  z.object({
    ifindex: z.number().optional(),
    ifname: z.string().optional(),
    ifalias: z.string().optional(),
    address: z.string().optional(),
    mtu: z.number().optional(),
    addr_info: z
      .array(z.object({ local: z.string().optional(), prefixlen: z.number().optional() }))
      .optional(),
  }),
)
const routesSchema = z.array(
  z.object({
    dst: z.string(),
    gateway: z.string().optional(),
    dev: z.string().optional(),
    protocol: z.string().optional(),
  }),
)

/** The link in a machine's namespace, which the guest's link is to be like. */
export interface VmLink {
  index: number
  mac: string
  mtu: number
  addresses: string[]
  /** The guest's end, when it is there: what it says of who joined it to which link. */
  tap?: { index: number; joined: string | undefined } | undefined
}

export interface VmNetwork extends VmLink {
  routes: { to: string; via?: string }[]
}

async function ipJson(netnsPath: string, ...args: string[]): Promise<unknown> {
  const words = await runOk('ip', ['-n', basename(netnsPath), '-j', ...args])
  return JSON.parse(words || '[]')
}

/** Undefined for a namespace without a link: a machine without a network. */
export async function readLink(netnsPath: string): Promise<VmLink | undefined> {
  // What a link is called besides its name is told of links only, its addresses of addresses only: one line each.
  const input = 'address show\nlink show\n'
  const told = await runOk('ip', ['-n', basename(netnsPath), '-j', '-batch', '-'], { input })
  const [addressed = [], links = []] = told
    .split('\n')
    .filter(Boolean)
    .map((line) => linkSchema.parse(JSON.parse(line)))
  const found = addressed.find(({ ifname }) => ifname === link)
  if (!found?.address) return undefined
  const guests = links.find(({ ifname }) => ifname === tap)
  return {
    index: found.ifindex ?? 0,
    mac: found.address,
    mtu: found.mtu ?? 1500,
    addresses: (found.addr_info ?? []).flatMap(({ local, prefixlen }) =>
      local === undefined ? [] : [`${local}/${prefixlen}`],
    ),
    tap: guests && { index: guests.ifindex ?? 0, joined: guests.ifalias },
  }
}

/** The link with its routes: all that a guest is told when it starts. */
export async function readNetwork(netnsPath: string): Promise<VmNetwork | undefined> {
  const routesOf = async (family: '-4' | '-6') =>
    routesSchema.parse(await ipJson(netnsPath, family, 'route', 'show'))
  const [found, routes4, routes6] = await Promise.all([
    readLink(netnsPath),
    routesOf('-4'),
    routesOf('-6'),
  ])
  if (!found) return undefined
  const everywhere = (family: 4 | 6) => (family === 4 ? '0.0.0.0/0' : '::/0')
  const toRoutes = (rows: z.infer<typeof routesSchema>, family: 4 | 6) =>
    rows
      // The kernel makes those of the addresses itself.
      .filter((row) => row.dev === link && row.protocol !== 'kernel')
      .flatMap(({ dst, gateway }) => {
        const to = dst === 'default' ? everywhere(family) : dst
        if (gateway === undefined) return [{ to }]
        // A gateway that is on no network of ours is on the link all the same.
        const onLink = family === 4 ? [{ to: `${gateway}/32` }] : []
        return [...onLink, { to, via: gateway }]
      })
  return { ...found, routes: [...toRoutes(routes4, 4), ...toRoutes(routes6, 6)] }
}

/**
 * Every frame that comes in over the namespace's link goes to the guest, and every one of the guest out over the link:
 * the namespace's own addresses rest meanwhile, and are back when this is gone. What a guest sends in another's name, of
 * hardware, IPv4 or IPv6, is dropped here and counted; the host's filter looks at the rest.
 */
function joinText(network: VmLink): string {
  const own = network.addresses.filter((address) => !address.startsWith('fe80')).map(prefixOf)
  const own4 = own.filter((address) => !address.includes(':'))
  const own6 = own.filter((address) => address.includes(':'))
  const set = (sources: string[]) => `{ ${sources.join(', ')} }`
  const drop = 'counter name spoofed drop'
  return `
add table netdev ${table}
delete table netdev ${table}
table netdev ${table} {
  counter spoofed { }
  chain to_guest {
    type filter hook ingress device "${link}" priority 0; policy accept;
    fwd to "${tap}"
  }
  chain from_guest {
    type filter hook ingress device "${tap}" priority 0; policy accept;
    ether saddr != ${network.mac} ${drop}
    ether type != { ip, ip6, arp } ${drop}
    ${own4.length > 0 ? `ip saddr != ${set(own4)} ${drop}` : `ether type ip ${drop}`}
    ${own4.length > 0 ? `arp saddr ip != ${set(own4)} ${drop}` : `ether type arp ${drop}`}
    ip6 saddr != ${set([...own6, 'fe80::/10', '::'])} ${drop}
    fwd to "${link}"
  }
}
`
}

/** An address of its own network alone, for IPv4; the whole of its network for IPv6: a machine has all of its /112. */
function prefixOf(address: string): string {
  const [host = '', length = ''] = address.split('/')
  if (!address.includes(':')) return host
  return Number(length) >= 112 ? address : host
}

/** $1: changes for ip, $2: the filter, $3: the tap's name, $4: what it is called once all is done. */
const joiner = `
ip link delete "$3" 2>/dev/null # Of an earlier start, with another owner.
printf %s "$1" | ip -batch - && printf %s "$2" | nft -f - && ip link set "$3" up alias "$4"
`

function joinedAs(network: VmLink, { uid, text }: { uid: number; text: string }): string {
  const digest = createHash('sha256').update(text).digest('hex').slice(0, 32)
  return `${network.index} ${uid} ${digest}`
}

/**
 * Names the link and the tap that is joined to it: no later one has their numbers. Undefined when the guest is not in the
 * place of the link.
 */
export function joinedLinks(network: VmLink, uid: number): string | undefined {
  const joined = joinedAs(network, { uid, text: joinText(network) })
  return network.tap?.joined === joined ? `${network.index} ${network.tap.index}` : undefined
}

/** The same of the links where a process is, at no cost; a link that is missing is an error. */
export function linksAt(pid: number): string {
  const index = (name: string) => {
    const about = readFileSync(`/proc/${pid}/net/dev_snmp6/${name}`, 'utf8')
    return /^ifIndex\s+(\d+)/.exec(about)?.[1]
  }
  return `${index(link)} ${index(tap)}`
}

/**
 * Puts the guest in the place of the namespace's link. A tap that says that it is joined to this very link, by these very
 * rules, is left as it is: a suspended VM finds its own again.
 */
export async function joinNetwork(netnsPath: string, network: VmLink, uid: number): Promise<void> {
  const text = joinText(network)
  const joined = joinedAs(network, { uid, text })
  if (network.tap?.joined === joined) return
  const changes = [
    `tuntap add dev ${tap} mode tap user ${uid} vnet_hdr`,
    `link set ${tap} mtu ${network.mtu} addrgenmode none`,
  ]
  const words = [`--net=${netnsPath}`, '/bin/sh', '-c', joiner, 'sh']
  const made = await run('nsenter', [...words, `${changes.join('\n')}\n`, text, tap, joined])
  if (made.code !== 0) {
    throw new Fault('native_failed', `no tap device in ${netnsPath}: ${made.stderr.trim()}`)
  }
}

/** Gives the link back to the namespace. A namespace that is gone is no error. */
export async function leaveNetwork(netnsPath: string): Promise<void> {
  const input = `add table netdev ${table}\ndelete table netdev ${table}\n`
  await run('nsenter', [`--net=${netnsPath}`, 'nft', '-f', '-'], { input })
  await run('ip', ['-n', basename(netnsPath), 'link', 'delete', tap])
}

/** Frames that the guest sent in another's name since its start. */
export async function spoofedFrames(netnsPath: string): Promise<number> {
  const args = [`--net=${netnsPath}`, 'nft', '-j', 'list', 'counter', 'netdev', table, 'spoofed']
  const { stdout } = await run('nsenter', args)
  return Number(/"packets": (\d+)/.exec(stdout)?.[1] ?? 0)
}
