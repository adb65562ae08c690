import { existsSync } from 'node:fs'
import { readTextFile } from '#sys/files.ts'
import { run } from '#sys/process.ts'

export interface NetProblem {
  what: string
  /** What it costs, and what to type. */
  advice: string
}

/** Base chains of the packet filter whose policy drops forwarded packets, by whatever program. */
export function droppingForwardChains(listing: unknown): string[] {
  const objects = (listing as { nftables?: unknown[] } | undefined)?.nftables ?? []
  return objects.flatMap((object) => {
    const chain = (object as { chain?: Record<string, unknown> }).chain
    const drops = chain?.['hook'] === 'forward' && chain['policy'] === 'drop'
    return drops
      ? [`${String(chain['family'])} ${String(chain['table'])} ${String(chain['name'])}`]
      : []
  })
}

/** What stands in the way of machines' traffic on this host; empty when nothing does. */
export async function netDoctor(): Promise<NetProblem[]> {
  const problems: NetProblem[] = []
  if (!existsSync('/proc/sys/net/ipv6')) {
    problems.push({
      what: 'the kernel has no IPv6',
      advice: 'private networks need it: remove ipv6.disable=1 from the kernel command line',
    })
  }
  for (const program of ['ip', 'nft']) {
    if ((await run(program, ['-V']).catch(() => undefined)) === undefined) {
      const advice = `apt install ${program === 'ip' ? 'iproute2' : 'nftables'}`
      problems.push({ what: `${program} is not installed`, advice })
    }
  }
  const listed = await run('nft', ['-j', 'list', 'chains']).catch(() => undefined)
  const chains = listed?.code === 0 ? droppingForwardChains(JSON.parse(listed.stdout)) : []
  for (const chain of chains) {
    problems.push({
      what: `the packet filter chain "${chain}" drops forwarded packets (Docker and firewalls do this)`,
      advice:
        'machines cannot reach the internet or each other: let packets from and to hg* links pass there, e.g. iptables -I FORWARD -i hg+ -j ACCEPT; iptables -I FORWARD -o hg+ -j ACCEPT; the same with ip6tables',
    })
  }
  if (readTextFile('/proc/net/ip_tables_names')?.includes('filter')) {
    const legacy = await run('iptables-legacy', ['-S', 'FORWARD']).catch(() => undefined)
    if (legacy?.stdout.includes('-P FORWARD DROP')) {
      problems.push({
        what: 'the old packet filter (iptables-legacy) drops forwarded packets',
        advice:
          'iptables-legacy -I FORWARD -i hg+ -j ACCEPT; iptables-legacy -I FORWARD -o hg+ -j ACCEPT',
      })
    }
  }
  return problems
}
