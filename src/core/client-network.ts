/**
 * The isolated network of a cloud's clients: a namespace of its own in which 127.0.0.1 is the machine's, the names of
 * apps are answered by the cloud, and nobody else can be reached. The cloud makes it; wrappers of clients enter it.
 */
export interface ClientNetwork {
  /** Its name in /run/netns. */
  netns: string
  /** The machine's end of the link. */
  link: string
  /** The alias that the link gets last: with it the network is complete. */
  mark: string
  /** Addresses of the two ends, from the range that nothing real uses (RFC 2544). */
  inside: string
  outside: string
}

/** @param cloudId four hexadecimal digits, unique on a machine. */
export function clientNetworkOf(cloudId: string): ClientNetwork {
  const [high, low] = [0, 2].map((at) => parseInt(cloudId.slice(at, at + 2), 16))
  return {
    netns: `hgr-clients-${cloudId}`,
    link: `hgc${cloudId}`,
    mark: 'complete 1',
    inside: `198.18.${high}.${low}`,
    outside: `198.19.${high}.${low}`,
  }
}
