import { sql } from 'kysely'
import { Fault } from '#core/fault.ts'
import { newVolumeId } from '#core/ids.ts'
import { resolveGuest } from '#spec/guest-size.ts'
import type { HostVolumeCreate } from '#spec/host-api.ts'
import { guestSchema } from '#spec/machine-config.ts'
import { volumeInputSchema, type Volume, type VolumeInput } from '#spec/volume.ts'
import { appRef, holdApp, type AppRecord } from '../apps/index.ts'
import type { ControlContext } from '../context.ts'
import { callHost, freshHosts, type HostRef } from '../hosts/index.ts'
import { thisRunner } from '../runner.ts'
import { regionPreferences } from '../schedule/index.ts'
import { parsed, rememberVolume } from './placements.ts'
import { findSourceSnapshot, findSourceVolume, type HostSource, type MayRead } from './source.ts'
import { chooseZone, type ZoneDemand } from './zone.ts'

/** CONF-5. */
const sizeGbDefault = 3

interface Wanted {
  input: VolumeInput
  source?: HostSource
  /** Where the volume is that is forked. */
  sourceHost?: string
}

/**
 * VOL-17, CONF-5: makes a volume on a host of the region; from a snapshot (VOL-15) or as a copy of a volume (VOL-13) when
 * the input names one. `mayRead` throws when the caller may not read the app that the content comes from. The volume may
 * still be filled when this returns (`restoring`, `hydrating`).
 * Faults: `invalid`, `not_found`, `precondition_failed`, `insufficient_capacity`, `host_unreachable`.
 */
export async function createVolume(
  ctx: ControlContext,
  app: AppRecord,
  raw: unknown,
  mayRead: MayRead = () => {},
): Promise<Volume> {
  const wanted = await wantedVolume(ctx, { app, raw, mayRead })
  const { input, source } = wanted
  const { id, host } = await reserve(ctx, { app, wanted, guest: guestOf(raw) })
  const body: HostVolumeCreate = {
    id,
    app: appRef(app),
    input: { ...input, region: host.region },
    ...(source ? { source } : {}),
  }
  try {
    const volume = await callHost<Volume>(ctx, host, {
      method: 'POST',
      path: '/v1/volumes',
      body,
      timeoutMs: 60_000,
    })
    await settle(ctx, id, 'placed')
    await rememberVolume(ctx, volume)
    return volume
  } catch (error) {
    // Whatever failed, the host may have written it down, and would go on with it.
    await settle(ctx, id, 'doomed')
    throw error
  }
}

/** The input with all that it does not say filled in, from the source where there is one. */
async function wantedVolume(
  ctx: ControlContext,
  { app, raw, mayRead }: { app: AppRecord; raw: unknown; mayRead: MayRead },
): Promise<Wanted> {
  const given = parsed(volumeInputSchema.partial({ name: true }), raw)
  if (given.snapshot_id && given.source_volume_id) {
    throw new Fault('invalid', 'snapshot_id, source_volume_id: give one of them, not both')
  }
  if (given.source_volume_id) {
    const found = await findSourceVolume(ctx, { app, id: given.source_volume_id, mayRead })
    const { volume, source, hostId } = found
    const input = parsed(volumeInputSchema, {
      ...given,
      name: given.name || volume.name,
      region: given.region || volume.region,
      size_gb: sizeFrom(source, given.size_gb || volume.size_gb),
      snapshot_retention: given.snapshot_retention ?? volume.snapshot_retention,
      fstype: volume.fstype,
    })
    return { input, source, sourceHost: hostId }
  }
  const input = parsed(volumeInputSchema, given)
  if (!input.snapshot_id) return { input: { ...input, size_gb: await sizeFor(ctx, app, input) } }
  const { source } = await findSourceSnapshot(ctx, { app, id: input.snapshot_id, mayRead })
  return { input: { ...input, size_gb: sizeFrom(source, input.size_gb || source.size_gb) }, source }
}

/**
 * CONF-5. A 0 is what clients send when they scale and know no size: then the volume is as large as the largest of its
 * name, as that one's data needs it.
 */
async function sizeFor(ctx: ControlContext, app: AppRecord, input: VolumeInput): Promise<number> {
  if (input.size_gb) return input.size_gb
  if (input.size_gb !== 0) return sizeGbDefault
  const { largest } = await ctx.db
    .selectFrom('volume_placements')
    .select((eb) => eb.fn.max('size_gb').as('largest'))
    .where('app_id', '=', app.id)
    .where('name', '=', input.name)
    .where('status', '=', 'placed')
    .executeTakeFirstOrThrow()
  return largest ?? sizeGbDefault
}

/** VOL-15: never smaller than what goes into it. */
function sizeFrom(source: HostSource, sizeGb: number): number {
  if (sizeGb >= source.size_gb) return sizeGb
  throw new Fault(
    'invalid',
    `size_gb: ${source.kind} ${source.id} needs a volume of ${source.size_gb} GB or more, not ${sizeGb}`,
  )
}

/** VOL-7: the guest that will mount it. */
function guestOf(raw: unknown): ZoneDemand['guest'] {
  const hint = guestSchema.nullish().safeParse((raw as { compute?: unknown } | null)?.compute)
  if (!hint.success) throw new Fault('invalid', 'compute: must be a guest, as in a machine config')
  return resolveGuest({ guest: hint.data ?? undefined })
}

/** Chooses the host and writes it down, before it is asked. Volumes of one app take turns, so that each sees the last. */
async function reserve(
  ctx: ControlContext,
  { app, wanted, guest }: { app: AppRecord; wanted: Wanted; guest: ZoneDemand['guest'] },
): Promise<{ id: string; host: HostRef & { region: string } }> {
  const { input, sourceHost } = wanted
  const preferences = regionPreferences(input.region)
  const regions = preferences.length > 0 ? preferences : ctx.settings.regions.slice(0, 1)
  const hosts = await freshHosts(ctx)
  const id = newVolumeId()
  return ctx.db.transaction().execute(async (trx) => {
    await holdApp(trx, app)
    await sql`select pg_advisory_xact_lock(hashtext(${`volumes of ${app.id}`}))`.execute(trx)
    const volumes = await trx
      .selectFrom('volume_placements')
      .select(['host_id', 'name'])
      .where('app_id', '=', app.id)
      .where('status', 'in', ['placing', 'placed'])
      .execute()
    const now = ctx.clock.now()
    const row = chooseZone({ hosts, now, regions, guest, input, volumes, sourceHost })
    const host = { host_id: row.host, host_api: row.api, region: row.region }
    await trx
      .insertInto('volume_placements')
      .values({
        volume_id: id,
        app_id: app.id,
        name: input.name,
        size_gb: input.size_gb || sizeGbDefault,
        ...host,
        status: 'placing',
        placed_by: thisRunner,
      })
      .execute()
    return { id, host }
  })
}

/** One that the deletion of its app has doomed meanwhile stays so. */
async function settle(ctx: ControlContext, id: string, status: 'placed' | 'doomed'): Promise<void> {
  await ctx.db
    .updateTable('volume_placements')
    .set({ status })
    .where('volume_id', '=', id)
    .where('status', '=', 'placing')
    .execute()
}
