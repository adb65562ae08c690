import { network6pnPrefix } from '#core/addresses.ts'
import { runOk } from '#sys/process.ts'
import { anyLink, type Addressing } from './addressing.ts'

/**
 * The packet filter of one host's machines: one table, replaced whole. It speaks only of packets that come from or go to
 * this host's links, so that several hosts on one kernel do not disturb each other; an `accept` here ends nothing but
 * this table. No rule names a machine: a source is checked against the routes, and a network is one element of a set.
 */
export function rulesetText(addressing: Addressing, networks: readonly number[]): string {
  const mine = `"${addressing.linkPrefix}*"`
  const any = `"${anyLink}"`
  const elements = networks.map(networkElement).join(', ')
  return `
add table inet ${addressing.table}
delete table inet ${addressing.table}
table inet ${addressing.table} {
  counter spoofed { }
  counter to_host { }
  counter to_machines { }
  set same_network {
    type ipv6_addr . ipv6_addr
    flags interval
    ${elements ? `elements = { ${elements} }` : ''}
  }
  chain prerouting {
    type filter hook prerouting priority -300; policy accept;
    iifname != ${mine} accept
    icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
    fib saddr . iif oif missing counter name spoofed drop
  }
  chain input {
    type filter hook input priority 0; policy accept;
    iifname != ${mine} accept
    ct state established,related accept
    icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
    counter name to_host drop
  }
  chain forward {
    type filter hook forward priority 0; policy accept;
    iifname ${mine} jump from_machine
    oifname ${mine} jump to_machine
  }
  chain from_machine {
    ip daddr 169.254.0.0/16 counter name to_host drop
    meta nfproto ipv4 oifname ${any} counter name to_machines drop
    meta nfproto ipv4 return
    oifname ${any} ip6 saddr . ip6 daddr @same_network return
    counter name to_machines drop
  }
  chain to_machine {
    ct state established,related return
    iifname ${any} ip6 saddr . ip6 daddr @same_network return
    counter name to_machines drop
  }
  chain postrouting {
    type nat hook postrouting priority 100; policy accept;
    ip saddr ${addressing.block} oifname != { ${any}, "lo" } masquerade
  }
}
`
}

function networkElement(network: number): string {
  const prefix = network6pnPrefix(network)
  return `${prefix} . ${prefix}`
}

/** Puts the whole table into effect in one transaction; established connections stay. */
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
    input: `add table inet ${table}\ndelete table inet ${table}\n`,
  })
}
