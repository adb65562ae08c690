import type { HostInfo } from '#spec/host-api.ts'
import type { ControlContext } from '../context.ts'
import { askHost } from './host-client.ts'

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
