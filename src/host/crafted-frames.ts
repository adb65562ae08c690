import { isIPv4 } from 'node:net'
import { ipv4ToNumber } from '#core/addresses.ts'

/** Frames as an attacker writes them, for tests: nothing in them need be true. */

export const etherTypes = { ip4: 0x0800, arp: 0x0806, ip6: 0x86dd, vlan: 0x8100, other: 0x88b5 }
export const protocols = { udp: 17, icmp6: 58, destinationOptions: 60, fragment: 44 }
export const broadcastMac = 'ff:ff:ff:ff:ff:ff'

const macBytes = (mac: string) => Buffer.from(mac.replaceAll(':', ''), 'hex')

function number16(value: number): Buffer {
  const bytes = Buffer.alloc(2)
  bytes.writeUInt16BE(value)
  return bytes
}

/** 4 bytes of an IPv4 address, 16 of an IPv6 address. */
export function addressBytes(address: string): Buffer {
  if (isIPv4(address)) {
    const bytes = Buffer.alloc(4)
    bytes.writeUInt32BE(ipv4ToNumber(address))
    return bytes
  }
  const [head = '', tail] = address.split('::')
  const groups = (part: string) => (part ? part.split(':') : [])
  const [before, after] = [groups(head), groups(tail ?? '')]
  const zeros = Array.from({ length: 8 - before.length - after.length }, () => '0')
  const all = [...before, ...(tail === undefined ? [] : zeros), ...after]
  return Buffer.concat(all.map((group) => number16(Number.parseInt(group, 16))))
}

/** Of the internet: the complement of the sum of 16-bit words. */
function checksum(...parts: Buffer[]): Buffer {
  const bytes = Buffer.concat([...parts, Buffer.alloc(1)])
  let sum = 0
  for (let at = 0; at + 1 < bytes.length; at += 2) sum += bytes.readUInt16BE(at)
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16)
  return number16(~sum & 0xffff)
}

export interface Ends {
  from: string
  to: string
}

export const ethernet = (ends: Ends, type: number, payload: Buffer): string =>
  Buffer.concat([macBytes(ends.to), macBytes(ends.from), number16(type), payload]).toString('hex')

export const tagged = (tag: number, type: number, payload: Buffer): Buffer =>
  Buffer.concat([number16(tag), number16(type), payload])

/** A packet of UDP, by IPv4 or IPv6 as the addresses are. */
export function udp(ends: Ends, port: number): Buffer {
  const words = Buffer.from('mischief')
  const head = Buffer.concat([number16(port), number16(port), number16(8 + words.length)])
  const [from, to] = [addressBytes(ends.from), addressBytes(ends.to)]
  const pseudo = [from, to, number16(protocols.udp), number16(8 + words.length)]
  const datagram = Buffer.concat([head, checksum(...pseudo, head, words), words])
  return isIPv4(ends.to) ? ip4(ends, datagram) : ip6(ends, protocols.udp, datagram)
}

function ip4(ends: Ends, payload: Buffer): Buffer {
  const start = Buffer.from([0x45, 0, 0, 20 + payload.length, 0, 1, 0, 0, 64, protocols.udp])
  const addresses = Buffer.concat([addressBytes(ends.from), addressBytes(ends.to)])
  return Buffer.concat([start, checksum(start, addresses), addresses, payload])
}

export function ip6(ends: Ends, next: number, payload: Buffer): Buffer {
  const start = Buffer.from([0x60, 0, 0, 0, 0, payload.length, next, 255])
  return Buffer.concat([start, addressBytes(ends.from), addressBytes(ends.to), payload])
}

/** Behind a header of destination options that says nothing. */
export const behindOptions = (next: number, payload: Buffer): Buffer =>
  Buffer.concat([Buffer.from([next, 0, 1, 4, 0, 0, 0, 0]), payload])

/** The first of several fragments, or with `offset` a later one. */
export const fragment = (next: number, offset: number, payload: Buffer): Buffer =>
  Buffer.concat([Buffer.from([next, 0]), number16((offset << 3) | 1), Buffer.alloc(4, 7), payload])

/** A message of ICMPv6, such as those of NDP. */
export function icmp6(ends: Ends, type: number, body: Buffer): Buffer {
  const head = Buffer.from([type, 0])
  const pseudo = [addressBytes(ends.from), addressBytes(ends.to)]
  const rest = [number16(4 + body.length), number16(protocols.icmp6)]
  const sum = checksum(...pseudo, ...rest, head, Buffer.alloc(2), body)
  return Buffer.concat([head, sum, body])
}

export const ndp = { routerAdvertisement: 134, solicit: 135, advertise: 136 }

export const ndpBody = (target: string, flags = 0): Buffer =>
  Buffer.concat([Buffer.from([flags, 0, 0, 0]), addressBytes(target)])

export function arp(operation: 1 | 2, sender: Ends & { mac: string }): Buffer {
  const head = Buffer.from([0, 1, 8, 0, 6, 4, 0, operation])
  const parts = [macBytes(sender.mac), addressBytes(sender.from), Buffer.alloc(6)]
  return Buffer.concat([head, ...parts, addressBytes(sender.to)])
}
