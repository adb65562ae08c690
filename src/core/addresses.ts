/**
 * NET-1: a machine's private address is a /112: `fdaa` (16 bits) | network (32) | host (32) | machine (32) | free (16).
 * The first three groups, a /48, are the network; groups 4 and 5 identify the host.
 */

const hex = (n: number) => n.toString(16)

/** The 6PN address of a machine in eight uncompressed groups, as clients that split on `:` expect it. */
export function machine6pn(network: number, host: number, machine: number): string {
  const high = (n: number) => hex(Math.floor(n / 0x10000))
  const low = (n: number) => hex(n % 0x10000)
  return [
    'fdaa',
    high(network),
    low(network),
    high(host),
    low(host),
    high(machine),
    low(machine),
    '2',
  ].join(':')
}

/** The /48 of a network: `fdaa:0:18::/48`. */
export function network6pnPrefix(network: number): string {
  return `fdaa:${hex(Math.floor(network / 0x10000))}:${hex(network % 0x10000)}::/48`
}

/** The dotted form of a 32-bit IPv4 address. */
export function ipv4FromNumber(n: number): string {
  return [n >>> 24, (n >>> 16) & 255, (n >>> 8) & 255, n & 255].join('.')
}

export function ipv4ToNumber(text: string): number {
  return text.split('.').reduce((sum, part) => sum * 256 + Number(part), 0)
}
