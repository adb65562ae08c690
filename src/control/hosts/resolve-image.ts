import { Fault, isFault } from '#core/fault.ts'
import { resolvedImageSchema, type ResolvedImage } from '#spec/host-api.ts'
import type { ControlContext } from '../context.ts'
import { callHost, freshHosts } from './host-client.ts'

/** A registry may be far away and slow. */
const resolveTimeoutMs = 60_000

/**
 * TOML-23: the digest behind an image's name, asked from a host, preferably of the region: hosts have the mirrors and the
 * credentials. Faults: what the host says (`image_unavailable` …), or `host_unreachable`.
 */
export async function resolveImage(
  ctx: ControlContext,
  { image, region }: { image: string; region?: string },
): Promise<ResolvedImage> {
  const now = ctx.clock.now()
  const hosts = (await freshHosts(ctx))
    .filter((host) => now - host.at < 10_000 || ctx.hosts.reachable(host.host))
    .toSorted((a, b) => Number(b.region === region) - Number(a.region === region))
  let silent: unknown
  for (const host of hosts.slice(0, 3)) {
    try {
      const answer = await callHost<unknown>(
        ctx,
        { host_id: host.host, host_api: host.api },
        {
          method: 'POST',
          path: '/v1/images/resolve',
          body: { image },
          timeoutMs: resolveTimeoutMs,
          repeatable: true,
        },
      )
      return resolvedImageSchema.parse(answer)
    } catch (error) {
      if (!isFault(error, 'host_unreachable')) throw error
      silent = error
    }
  }
  if (silent) throw silent
  throw new Fault(
    'host_unreachable',
    `image ${image} cannot be looked up because no host is up; see: hangar status`,
  )
}
