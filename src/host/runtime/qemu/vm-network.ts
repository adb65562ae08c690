import { basename } from 'node:path'
import { z } from 'zod'
import { Fault } from '#core/fault.ts'
import { run, runOk } from '#sys/process.ts'

const link = 'eth0'
export const tap = 'tap0'
const table = 'hangar-vm'

const linkSchema = z.array(
  z.object({
    ifname: z.string().optional(),
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

/** What the link in a machine's namespace has, and so what the guest's link is to have. */
export interface VmNetwork {
  mac: string
  mtu: number
  addresses: string[]
  routes: { to: string; via?: string }[]
}

/** Undefined for a namespace without a link: a machine without a network. */
export async function readNetwork(netnsPath: string): Promise<VmNetwork | undefined> {
  const ip = async (...args: string[]): Promise<unknown> => {
    const words = await runOk('ip', ['-n', basename(netnsPath), '-j', ...args])
    return JSON.parse(words || '[]')
  }
  const [links, routes4, routes6] = await Promise.all([
    ip('address', 'show').then((found) => linkSchema.parse(found)),
    ip('-4', 'route', 'show').then((found) => routesSchema.parse(found)),
    ip('-6', 'route', 'show').then((found) => routesSchema.parse(found)),
  ])
  const found = links.find(({ ifname }) => ifname === link)
  if (!found?.address) return undefined
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
  return {
    mac: found.address,
    mtu: found.mtu ?? 1500,
    addresses: (found.addr_info ?? []).flatMap(({ local, prefixlen }) =>
      local === undefined ? [] : [`${local}/${prefixlen}`],
    ),
    routes: [...toRoutes(routes4, 4), ...toRoutes(routes6, 6)],
  }
}

/**
 * Every frame that comes in over the namespace's link goes to the guest, and every one of the guest out over the link:
 * the namespace's own addresses rest meanwhile, and are back when this is gone. What a guest sends in another's name, of
 * hardware, IPv4 or IPv6, is dropped here and counted; the host's filter looks at the rest.
 */
function joinText(network: VmNetwork): string {
  const own4 = network.addresses.filter((address) => !address.includes(':'))
  const own6 = network.addresses.filter((address) => /^(?!fe80).*:/.test(address))
  const set = (own: string[]) => `{ ${own.map(prefixOf).join(', ')} }`
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

/** Puts the guest in the place of the namespace's link. Harmless when that is done already. */
export async function joinNetwork(
  netnsPath: string,
  network: VmNetwork,
  uid: number,
): Promise<void> {
  const lines = [
    `tuntap add dev ${tap} mode tap user ${uid} vnet_hdr`,
    `link set ${tap} mtu ${network.mtu} addrgenmode none up`,
  ]
  await runOk('ip', ['-n', basename(netnsPath), '-force', '-batch', '-'], {
    input: `link delete ${tap}\n`,
  }).catch(() => {}) // Of an earlier start, with another owner.
  const made = await run('ip', ['-n', basename(netnsPath), '-batch', '-'], {
    input: `${lines.join('\n')}\n`,
  })
  if (made.code !== 0) {
    throw new Fault('native_failed', `no tap device in ${netnsPath}: ${made.stderr.trim()}`)
  }
  await runOk('nsenter', [`--net=${netnsPath}`, 'nft', '-f', '-'], { input: joinText(network) })
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
