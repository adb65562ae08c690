import { Fault } from '#core/fault.ts'
import type { Logger } from '#sys/log.ts'

/**
 * The network of one host's machines: a namespace and a routed veth each, one packet filter table for all. Every verb
 * may be repeated, and nothing lives in our memory: the kernel's state is the record.
 */
export interface HostNet {
  /** Idempotent: what is there already and right is kept, so a running machine never notices. */
  attach(request: AttachRequest): Promise<Attachment>
  /** Removes the machine's namespace, link and rules. Nothing to remove is no error. */
  detach(id: string): Promise<void>
  /** Removes what belongs to this host's machines that are not named. */
  keepOnly(ids: readonly string[]): Promise<void>
  /** Removes everything of this host. */
  destroyAll(): Promise<void>
}

export interface AttachRequest {
  id: string
  /** The number of the machine's network: its /48. */
  network: number
  /** The host's small number for this machine, the same for life; 0 to 65,000. Addresses follow from it. */
  index: number
}

export interface Attachment {
  netnsPath: string
  netnsName: string
  ip4: string
  /** NET-1, in eight groups. */
  ip6: string
}

export interface HostNetOptions {
  hostId: string
  /** The host's part of the private addresses. */
  hostNumber: number
  /** At least a /16, e.g. `10.200.0.0/16`. */
  ipv4Block: string
  log: Logger
}

export async function openHostNet(options: HostNetOptions): Promise<HostNet> {
  throw new Fault('not_available_yet', `the network of ${options.hostId} is being written`)
}
