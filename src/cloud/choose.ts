import { randomBytes, randomInt } from 'node:crypto'
import { networkInterfaces } from 'node:os'
import ipaddr from 'ipaddr.js'
import { Fault } from '#core/fault.ts'
import type { CloudConfig } from '#spec/settings.ts'
import { chooseFreePort } from '#sys/ports.ts'
import { wantedPlaces } from './shape.ts'
import type { CloudState, Overrides, Place, Ports } from './state.ts'

/**
 * What a cloud chooses once and keeps: ports, and for each host its id, number and private block. Ids, numbers and
 * blocks are drawn by chance, so that several clouds of one machine do not meet.
 */
export async function chooseState(options: {
  config: CloudConfig
  overrides: Overrides
  kept: CloudState | undefined
  /** The other clouds of this machine, running or not. */
  neighbours: readonly CloudState[]
  /** False while parts of this cloud still run: their ports are ours. */
  mayMovePorts: boolean
}): Promise<{ state: CloudState; moved: string[] }> {
  const { config, kept, neighbours } = options
  const others = neighbours.flatMap((cloud) => cloud.places)
  const cloudId = kept?.cloud_id ?? randomBytes(2).toString('hex')
  const { ports, taken, moved } = await choosePorts(options)
  const places = [...(kept?.places ?? [])]
  for (const { id, region } of wantedPlaces(config, cloudId)) {
    const known = places.findIndex((place) => place.id === id)
    const place =
      known === -1
        ? newPlace({ id, region, others: [...places, ...others] })
        : (places[known] as Place)
    // The first edge has the cloud's own ports; the others of this machine get ports of their own.
    const first = places.length === 0 || known === 0
    const placed = first
      ? { ...place, http_port: ports.http, https_port: ports.https }
      : await ownPorts(place, ports, taken, places)
    const woken = await withWakerPort(placed, taken)
    if (known === -1) places.push(woken)
    else places[known] = woken
  }
  const state: CloudState = {
    version: 1,
    cloud_id: cloudId,
    domain: config.domain,
    ports,
    ports_wanted: config.ports,
    places,
    overrides: options.overrides,
  }
  return { state, moved }
}

async function choosePorts(options: {
  config: CloudConfig
  kept: CloudState | undefined
  neighbours: readonly CloudState[]
  mayMovePorts: boolean
}): Promise<{ ports: Ports; taken: Set<number>; moved: string[] }> {
  const { config, kept, mayMovePorts } = options
  const ports = {} as Ports
  const taken = new Set(options.neighbours.flatMap(portsOf))
  const moved: string[] = []
  for (const name of ['http', 'https', 'api', 'registry', 'nats'] as const) {
    const before = kept?.ports[name]
    const wanted =
      before !== undefined && kept?.ports_wanted[name] === config.ports[name]
        ? before
        : config.ports[name]
    const port = before === wanted && !mayMovePorts ? wanted : await chooseFreePort(wanted, taken)
    if (before !== undefined && port !== before) {
      // Image references of everything deployed so far name the registry's port.
      if (name === 'registry') {
        throw new Fault(
          'conflict',
          `port ${before} of this cloud's registry is taken by another program; images are named by it, so it cannot move: stop that program (see: ss -ltnp) and try again`,
        )
      }
      moved.push(`${name}: port ${before} is taken, ${port} is used from now on`)
    } else if (before === undefined && port !== config.ports[name]) {
      moved.push(`${name}: port ${config.ports[name]} is taken, ${port} is used`)
    }
    ports[name] = port
    taken.add(port)
  }
  return { ports, taken, moved }
}

async function ownPorts(
  place: Place,
  ports: Ports,
  taken: Set<number>,
  places: readonly Place[],
): Promise<Place> {
  if (place.http_port !== 0) return place
  for (const other of places) taken.add(other.http_port).add(other.https_port)
  const http = await chooseFreePort(Math.max(ports.http, 8080) + 1, taken)
  taken.add(http)
  const https = await chooseFreePort(Math.max(ports.https, 8443) + 1, taken)
  taken.add(https)
  return { ...place, http_port: http, https_port: https }
}

async function withWakerPort(place: Place, taken: Set<number>): Promise<Place> {
  if (place.waker_port !== 0) return place
  const port = await chooseFreePort(4300, taken, '127.0.0.1')
  taken.add(port)
  return { ...place, waker_port: port }
}

function newPlace(options: { id: string; region: string; others: readonly Place[] }): Place {
  const { id, region, others } = options
  let number: number
  do number = randomInt(1, 0xffffffff)
  while (others.some((place) => place.number === number))
  return {
    id,
    region,
    number,
    ipv4_block: freeBlock(others),
    http_port: 0,
    https_port: 0,
    waker_port: 0,
  }
}

/** A /16 of 10/8 that neither an interface of this machine nor another place of this cloud touches. */
export function freeBlock(
  places: readonly Pick<Place, 'ipv4_block'>[],
  interfaces: readonly string[] = localCidrs(),
): string {
  const used = [...interfaces, ...places.map((place) => place.ipv4_block)].map((cidr) =>
    ipaddr.IPv4.parseCIDR(cidr),
  )
  const start = randomInt(64, 256)
  for (let i = 0; i < 192; i++) {
    const block = `10.${64 + ((start - 64 + i) % 192)}.0.0/16`
    const [base] = ipaddr.IPv4.parseCIDR(block)
    const touches = ([address, bits]: [ipaddr.IPv4, number]) =>
      base.match(address, Math.min(bits, 16)) || address.match(base, Math.min(bits, 16))
    if (!used.some(touches)) return block
  }
  throw new Fault('limit_reached', 'no free /16 in 10.64.0.0-10.255.0.0 for another host')
}

function localCidrs(): string[] {
  return Object.values(networkInterfaces())
    .flat()
    .flatMap((address) => (address?.family === 'IPv4' && address.cidr ? [address.cidr] : []))
}

const portsOf = (cloud: CloudState): number[] => [
  ...Object.values(cloud.ports),
  ...cloud.places.flatMap((place) => [place.http_port, place.https_port, place.waker_port]),
]
