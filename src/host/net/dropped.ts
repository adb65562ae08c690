import { z } from 'zod'
import { run } from '#sys/process.ts'

/** What was dropped of machines' packets since the packet filter was put into effect. */
export interface Dropped {
  /** Sent under an address that is not the sender's. */
  spoofed: number
  /** Sent to the host, by whatever address, or to addresses of a link. */
  to_host: number
  /** Sent to machines of other networks, or to any by IPv4. */
  to_machines: number
  /** To another hardware address, of another protocol or with a tag: the kernel's own count of each link that is there. */
  foreign: number
  /** All of them by the link that they came from. */
  links: Map<string, number>
}

const linksSchema = z.array(
  z.object({
    ifname: z.string().optional(),
    stats64: z
      .object({ rx: z.object({ dropped: z.number(), otherhost: z.number().default(0) }) })
      .optional(),
  }),
)

const listingSchema = z.object({
  nftables: z.array(
    z.object({
      counter: z.object({ name: z.string(), packets: z.number() }).optional(),
      set: z
        .object({
          elem: z
            .array(
              z.object({
                elem: z.object({
                  val: z.string(),
                  counter: z.object({ packets: z.number() }).optional(),
                }),
              }),
            )
            .optional(),
        })
        .optional(),
    }),
  ),
})

/** Zeros where there is no such table. */
export async function readDropped(where: { table: string; linkPrefix: string }): Promise<Dropped> {
  const { table, linkPrefix } = where
  const [links, ...listings] = await Promise.all([
    foreignFrames(),
    list('counters', 'table', 'inet', table),
    list('counters', 'table', 'arp', table),
    list('set', 'inet', table, 'dropped'),
    list('set', 'arp', table, 'dropped'),
  ])
  const dropped: Dropped = { spoofed: 0, to_host: 0, to_machines: 0, foreign: 0, links: new Map() }
  const add = (link: string, packets: number) => {
    if (packets > 0 && link.startsWith(linkPrefix)) {
      dropped.links.set(link, (dropped.links.get(link) ?? 0) + packets)
    }
  }
  for (const { counter, set } of listings.flat()) {
    const name = counter?.name
    if (counter && (name === 'spoofed' || name === 'to_host' || name === 'to_machines')) {
      dropped[name] += counter.packets
    }
    for (const { elem } of set?.elem ?? []) add(elem.val, elem.counter?.packets ?? 0)
  }
  for (const [link, packets] of links) {
    if (link.startsWith(linkPrefix)) dropped.foreign += packets
    add(link, packets)
  }
  return dropped
}

/** No filter sees them, and the kernel counts them by link. */
async function foreignFrames(): Promise<[string, number][]> {
  const { code, stdout } = await run('ip', ['-j', '-s', '-s', 'link', 'show', 'type', 'veth'])
  if (code !== 0) return []
  return linksSchema.parse(JSON.parse(stdout || '[]')).map(({ ifname = '', stats64 }) => {
    const { dropped = 0, otherhost = 0 } = stats64?.rx ?? {}
    return [ifname, dropped + otherhost]
  })
}

async function list(...what: string[]): Promise<z.infer<typeof listingSchema>['nftables']> {
  const { code, stdout } = await run('nft', ['-j', 'list', ...what])
  return code === 0 ? listingSchema.parse(JSON.parse(stdout)).nftables : []
}
