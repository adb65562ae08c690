import type { Part } from './part.ts'
import { containerdPart } from './natives/containerd.ts'
import { dockerdPart } from './natives/dockerd.ts'
import { natsPart } from './natives/nats.ts'
import { postgresPart } from './natives/postgres.ts'
import { registryPart } from './natives/registry.ts'
import { controlPart, edgePart, hostPart, type World } from './roles.ts'

/** The natives of a cloud, in the order in which they are stopped last to first. */
export function nativeParts(world: World): Part[] {
  const { home, config, state } = world
  return [
    ...(config.database_url ? [] : [postgresPart(home)]),
    natsPart(home, state.ports.nats),
    registryPart(home, state.ports),
    containerdPart(home),
    dockerdPart(home, { cloudId: state.cloud_id, mirrors: config.mirrors }),
  ]
}

/** Every process of the cloud: the natives, control, and a host with its edge for each place. */
export function planParts(world: World): Part[] {
  return [
    ...nativeParts(world),
    controlPart(world),
    ...world.state.places.flatMap((place) => [hostPart(world, place), edgePart(world, place)]),
  ]
}
