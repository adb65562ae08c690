import { network6pnPrefix } from '#core/addresses.ts'
import { runOk } from '#sys/process.ts'
import { anyLink, hostLinkLocal, machineLinkLocals, type Addressing } from './addressing.ts'

/** Of each link, what was dropped of it; a machine that sent nothing wrong for a day is not in it. */
const droppedSet =
  'set dropped { type ifname; size 65535; flags dynamic,timeout; timeout 1d; counter; }'

/**
 * The packet filter of one host's machines: its tables, replaced whole. They speak only of packets that come from or go to
 * this host's links, so that several hosts on one kernel do not disturb each other; an `accept` here ends nothing but
 * its table. No rule names a machine: a source is checked against the routes, and a network is one element of a set.
 * What the kernel would drop by itself (loopback and link-local addresses on the wire) is dropped before, to be counted.
 */
export function rulesetText(addressing: Addressing, networks: readonly number[]): string {
  const mine = `"${addressing.linkPrefix}*"`
  const any = `"${anyLink}"`
  const elements = networks.map(networkElement).join(', ')
  // All that a machine asks for by NDP; its target stands behind the first eight bytes of the message.
  const hostSide = [hostLinkLocal, addressing.gateway6]
  const hex = (address: string) =>
    `0x${address
      .split(':')
      .map((group) => group.padStart(4, '0'))
      .join('')}`
  const drop = (why: string) => `update @dropped { iifname } counter name ${why} drop`
  return `
add table inet ${addressing.table}
delete table inet ${addressing.table}
table inet ${addressing.table} {
  counter spoofed { }
  counter to_host { }
  counter to_machines { }
  ${droppedSet}
  set same_network {
    type ipv6_addr . ipv6_addr
    flags interval
    ${elements ? `elements = { ${elements} }` : ''}
  }
  set link_talk {
    comment "what every kernel says on a new link, to nobody in particular"
    type icmpv6_type
    elements = { nd-router-solicit, mld-listener-report, mld-listener-done, mld2-listener-report }
  }
  chain prerouting {
    type filter hook prerouting priority -300; policy accept;
    iifname != ${mine} accept
    ip6 daddr ff02::/16 ip6 saddr { ::, fe80::/10 } icmpv6 type @link_talk drop
    ip6 saddr :: ip6 daddr ff02::/16 icmpv6 type nd-neighbor-solicit accept
    fib saddr . iif oif missing ${drop('spoofed')}
    ip6 saddr fe80::/10 ip6 saddr != { ${machineLinkLocals.join(', ')} } ${drop('spoofed')}
    ip6 saddr fe80::/10 ip6 daddr != { fe80::/10, ff02::/16 } ${drop('spoofed')}
    ip daddr { 127.0.0.0/8, 169.254.0.0/16, 224.0.0.0/4 } ${drop('to_host')}
    icmpv6 type nd-neighbor-solicit @th,64,128 { ${hostSide.map(hex).join(', ')} } accept
    ip6 daddr ff00::/8 ${drop('to_host')}
  }
  chain input {
    type filter hook input priority 0; policy accept;
    iifname != ${mine} accept
    ct state established,related accept
    icmpv6 type nd-neighbor-solicit ip6 saddr :: accept
    icmpv6 type nd-neighbor-solicit @th,64,128 { ${hostSide.map(hex).join(', ')} } accept
    icmpv6 type nd-neighbor-advert ip6 daddr { ${hostSide.join(', ')} } accept
    ${drop('to_host')}
  }
  chain from_machine {
    comment "before any host looks at what comes to its machines: it is counted where it came from"
    type filter hook forward priority -1; policy accept;
    iifname != ${mine} accept
    meta nfproto ipv4 oifname ${any} ${drop('to_machines')}
    meta nfproto ipv4 accept
    oifname ${any} ip6 saddr . ip6 daddr @same_network accept
    ${drop('to_machines')}
  }
  chain to_machine {
    type filter hook forward priority 0; policy accept;
    oifname != ${mine} accept
    ct state established,related accept
    iifname ${any} ip6 saddr . ip6 daddr @same_network accept
    counter name to_machines drop
  }
  chain postrouting {
    type nat hook postrouting priority 100; policy accept;
    ip saddr ${addressing.block} oifname != { ${any}, "lo" } masquerade
  }
}
add table arp ${addressing.table}
delete table arp ${addressing.table}
table arp ${addressing.table} {
  counter spoofed { }
  ${droppedSet}
  chain input {
    type filter hook input priority 0; policy accept;
    iifname != ${mine} accept
    arp operation request arp saddr ip ${addressing.block} arp daddr ip ${addressing.gateway4} accept
    ${drop('spoofed')}
  }
}
`
}

function networkElement(network: number): string {
  const prefix = network6pnPrefix(network)
  return `${prefix} . ${prefix}`
}

/** Puts all of it into effect in one transaction; established connections stay. */
export async function applyRuleset(
  addressing: Addressing,
  networks: readonly number[],
): Promise<void> {
  await runOk('nft', ['-f', '-'], { input: rulesetText(addressing, networks) })
}

/** Lets the machines of a network reach each other. Adding what is there is no error. */
export async function allowNetwork(addressing: Addressing, network: number): Promise<void> {
  const element = networkElement(network)
  const input = `add element inet ${addressing.table} same_network { ${element} }\n`
  await runOk('nft', ['-f', '-'], { input })
}

export async function dropRuleset(addressing: Addressing): Promise<void> {
  const table = addressing.table
  await runOk('nft', ['-f', '-'], {
    input: ['inet', 'arp']
      .map((f) => `add table ${f} ${table}\ndelete table ${f} ${table}\n`)
      .join(''),
  })
}
