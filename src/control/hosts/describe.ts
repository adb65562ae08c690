import { Fault, isFault } from '#core/fault.ts'
import { resolvedImageSchema, type HostInfo, type ResolvedImage } from '#spec/host-api.ts'
import type { ControlContext } from '../context.ts'
import { askHost, callHost } from './host-client.ts'

/** Every host as it describes itself right now; one that does not answer in 1.5 s as it was announced last. */
export async function describeHosts(
  ctx: ControlContext,
): Promise<(HostInfo & { reachable: boolean })[]> {
  return Promise.all(
    ctx.hosts.list().map(async ({ row }) => {
      try {
        const info = await askHost(ctx, { host_id: row.host, host_api: row.api }, 1_500)
        return { ...info, reachable: true }
      } catch {
        return {
          id: row.host,
          number: row.number,
          region: row.region,
          pid: 0,
          runtime: '',
          runtime_note: '',
          machines: row.used.machines,
          capacity: row.capacity,
          used: row.used,
          reachable: false,
        }
      }
    }),
  )
}

/** Which digest an image reference means now. The first host that answers is asked: hosts have the mirrors and keys. */
export async function resolveImage(ctx: ControlContext, image: string): Promise<ResolvedImage> {
  const hosts = ctx.hosts
    .list()
    .toSorted((a, b) => b.heardAt - a.heardAt)
    .slice(0, 5)
  for (const { row } of hosts) {
    try {
      const answer = await callHost<unknown>(
        ctx,
        { host_id: row.host, host_api: row.api },
        {
          method: 'POST',
          path: '/v1/images/resolve',
          body: { image },
          timeoutMs: 60_000,
          repeatable: true,
        },
      )
      return resolvedImageSchema.parse(answer)
    } catch (error) {
      if (!isFault(error, 'host_unreachable')) throw error
    }
  }
  throw new Fault('host_unreachable', `no host answers to look up image ${image}; is one running?`)
}
