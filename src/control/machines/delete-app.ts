import { messageOf } from '#core/fault.ts'
import { getAppById, type AppRecord } from '../apps/index.ts'
import type { ControlContext } from '../context.ts'
import { callHost } from '../hosts/index.ts'
import { destroyAbandonedVolumes, doomVolumes } from '../volumes/index.ts'
import { destroyAbandoned } from './janitor.ts'
import { oneAtATime } from './one-at-a-time.ts'
import { doomMachines, everyHostOfApp } from './placements.ts'

/**
 * Deletes an app with its machines, volumes and secrets; the name is free when it returns. It is written down before
 * anything goes: from then on nothing is made in the app, and whoever lives finishes what was begun. Every step can be
 * repeated. A host that does not answer blocks nothing: its part is destroyed by the janitor when it is back.
 */
export async function deleteApp(ctx: ControlContext, app: AppRecord): Promise<void> {
  // Waits for those who are writing a machine or a volume of it down, which are found below.
  await ctx.db
    .updateTable('apps')
    .set((eb) => ({
      deleting_at: eb.fn.coalesce('deleting_at', eb.val(new Date(ctx.clock.now()))),
    }))
    .where('id', '=', app.id)
    .execute()
  await oneAtATime(`delete ${app.id}`, () => finishDeletion(ctx, app))
}

async function finishDeletion(ctx: ControlContext, app: AppRecord): Promise<void> {
  if (!(await isBeingDeleted(ctx, app))) return
  await doomMachines(ctx, app)
  await doomVolumes(ctx, app)
  const machinesLeft = await destroyAbandoned(ctx, { appId: app.id })
  const volumesLeft = await destroyAbandonedVolumes(ctx, { appId: app.id })
  if (machinesLeft + volumesLeft > 0) {
    ctx.log.warn({ app: app.name, machinesLeft, volumesLeft }, 'destroyed when their hosts answer')
  }
  await forgetOnHosts(ctx, app)
  await ctx.db.transaction().execute(async (trx) => {
    await trx.deleteFrom('secrets').where('app_id', '=', app.id).execute()
    await trx.deleteFrom('secret_pushes').where('app_id', '=', app.id).execute()
    await trx
      .updateTable('apps')
      .set({ deleted_at: new Date(ctx.clock.now()) })
      .where('id', '=', app.id)
      .execute()
  })
}

/** False when somebody else has finished it. */
async function isBeingDeleted(ctx: ControlContext, app: AppRecord): Promise<boolean> {
  const row = await ctx.db
    .selectFrom('apps')
    .select('id')
    .where('id', '=', app.id)
    .where('deleted_at', 'is', null)
    .executeTakeFirst()
  return row !== undefined
}

async function forgetOnHosts(ctx: ControlContext, app: AppRecord): Promise<void> {
  await Promise.all(
    (await everyHostOfApp(ctx, app)).map(async (host) => {
      const path = `/v1/apps/${app.id}`
      try {
        await callHost(ctx, host, { method: 'DELETE', path, source: 'flyd' })
      } catch (error) {
        ctx.log.warn({ host: host.host_id, error: messageOf(error) }, 'host keeps logs of an app')
      }
    }),
  )
}

/** Finishes the deletions that a dead process began, or that could not be written down to their end. */
export async function finishDeletions(ctx: ControlContext): Promise<void> {
  const rows = await ctx.db
    .selectFrom('apps')
    .select('id')
    .where('deleting_at', 'is not', null)
    .where('deleted_at', 'is', null)
    .orderBy('deleting_at')
    .limit(100)
    .execute()
  for (const { id } of rows) {
    try {
      await deleteApp(ctx, await getAppById(ctx, id))
    } catch (error) {
      ctx.log.warn({ app: id, error: messageOf(error) }, 'a deletion is finished later')
    }
  }
}
