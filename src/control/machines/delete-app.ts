import { messageOf } from '#core/fault.ts'
import type { AppRecord } from '../apps/index.ts'
import type { ControlContext } from '../context.ts'
import { callHost } from '../hosts/index.ts'
import { destroyAbandonedVolumes, doomVolumes } from '../volumes/index.ts'
import { destroyAbandoned } from './janitor.ts'
import { doomMachines, hostsOfApp } from './placements.ts'

/**
 * Deletes an app with its machines, volumes and secrets; the name is free when it returns. Every step can be repeated. A
 * host that does not answer blocks nothing: its part is destroyed by the janitor when it is back.
 */
export async function deleteApp(ctx: ControlContext, app: AppRecord): Promise<void> {
  const refs = await hostsOfApp(ctx, app)
  const hosts = [...new Map(refs.map((ref) => [ref.host_id, ref])).values()]
  await doomMachines(ctx, app)
  await doomVolumes(ctx, app)
  const machinesLeft = await destroyAbandoned(ctx, { appId: app.id })
  const volumesLeft = await destroyAbandonedVolumes(ctx, { appId: app.id })
  if (machinesLeft + volumesLeft > 0) {
    ctx.log.warn({ app: app.name, machinesLeft, volumesLeft }, 'destroyed when their hosts answer')
  }
  await Promise.all(
    hosts.map(async (host) => {
      const path = `/v1/apps/${app.id}`
      try {
        await callHost(ctx, host, { method: 'DELETE', path, source: 'flyd' })
      } catch (error) {
        ctx.log.warn({ host: host.host_id, error: messageOf(error) }, 'host keeps logs of an app')
      }
    }),
  )
  await ctx.db.transaction().execute(async (trx) => {
    await trx.deleteFrom('secrets').where('app_id', '=', app.id).execute()
    await trx.deleteFrom('secret_pushes').where('app_id', '=', app.id).execute()
    await trx
      .updateTable('apps')
      .set({ deleted_at: new Date(ctx.clock.now()) })
      .where('id', '=', app.id)
      .execute()
  })
  // What was asked for while all this went on; from here on nothing more can be.
  await doomMachines(ctx, app)
  await doomVolumes(ctx, app)
  await destroyAbandoned(ctx, { appId: app.id })
  await destroyAbandonedVolumes(ctx, { appId: app.id })
}
