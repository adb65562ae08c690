import { Fault, isFault } from '#core/fault.ts'
import type { HostVolumeCreate } from '#spec/host-api.ts'
import type { Snapshot, Volume } from '#spec/volume.ts'
import { getAppById, type AppRecord } from '../apps/index.ts'
import type { ControlContext } from '../context.ts'
import { callHost, type HostRef } from '../hosts/index.ts'
import { placementsOfOrg } from './placements.ts'

/** What a volume is made from, as its host is told. */
export type HostSource = NonNullable<HostVolumeCreate['source']>

const gibibyte = 1024 ** 3

/** Throws when the caller may not read this app: a token for one app must not copy the data of another. */
export type MayRead = (app: AppRecord) => void

/** VOL-13: a volume of the app, or of another app of its organization, that exists. Its host must answer. */
export async function findSourceVolume(
  ctx: ControlContext,
  options: { app: AppRecord; id: string; mayRead: MayRead },
): Promise<{ volume: Volume; source: HostSource; hostId: string }> {
  const { app, id, mayRead } = options
  const rows = await placementsOfOrg(ctx, app.org.id)
  const row = rows.find((one) => one.volume_id === id)
  if (!row) {
    throw new Fault(
      'not_found',
      `source_volume_id: organization ${app.org.slug} has no volume ${id}; list them with: volumes list`,
    )
  }
  mayRead(await getAppById(ctx, row.app_id))
  if (row.status === 'leaving') {
    throw new Fault(
      'precondition_failed',
      `source_volume_id: volume ${id} was destroyed; make the volume from one of its snapshots`,
    )
  }
  const volume = await callHost<Volume>(ctx, row, { method: 'GET', path: `/v1/volumes/${id}` })
  const host_api = ctx.hosts.apiOf(row.host_id, row.host_api)
  return {
    volume,
    hostId: row.host_id,
    source: { kind: 'volume', id, host_api, size_gb: volume.size_gb },
  }
}

/** VOL-15: a snapshot of any volume of the organization, which need not exist any more. */
export async function findSourceSnapshot(
  ctx: ControlContext,
  options: { app: AppRecord; id: string; mayRead: MayRead },
): Promise<{ source: HostSource }> {
  const { app, id, mayRead } = options
  const rows = await placementsOfOrg(ctx, app.org.id)
  const found = await askForSnapshot(ctx, { app, id, candidates: rows })
  const owner = rows.find((row) => row.volume_id === found.snapshot.volume_id)
  // Of another organization, or of a deleted app: as good as not there.
  if (!owner) throw noSnapshot(app, id)
  mayRead(await getAppById(ctx, owner.app_id))
  const { status, volume_size } = found.snapshot
  if (status !== 'created') {
    throw new Fault(
      'precondition_failed',
      status === 'failed'
        ? `snapshot_id: snapshot ${id} failed; take another one`
        : `snapshot_id: snapshot ${id} is still being taken (${status}); wait until it is created`,
    )
  }
  const host_api = ctx.hosts.apiOf(found.host.host_id, found.host.host_api)
  const size_gb = Math.ceil(volume_size / gibibyte)
  return { source: { kind: 'snapshot', id, host_api, size_gb } }
}

/** Only its host knows a snapshot: all that have, or had, a volume of the organization are asked at once. */
async function askForSnapshot(
  ctx: ControlContext,
  options: { app: AppRecord; id: string; candidates: readonly HostRef[] },
): Promise<{ snapshot: Snapshot; host: HostRef }> {
  const { app, id } = options
  const hosts = [...new Map(options.candidates.map((row) => [row.host_id, row])).values()]
  const silent: string[] = []
  const path = `/v1/snapshots/${encodeURIComponent(id)}`
  const answers = await Promise.all(
    hosts.map(async (host) => {
      try {
        const call = { method: 'GET', path, timeoutMs: 5_000 }
        return { host, snapshot: await callHost<Snapshot>(ctx, host, call) }
      } catch (error) {
        if (isFault(error, 'host_unreachable')) silent.push(host.host_id)
        else if (!isFault(error, 'not_found')) throw error
        return undefined
      }
    }),
  )
  const answer = answers.find((one) => one !== undefined)
  if (answer) return answer
  if (silent.length === 0) throw noSnapshot(app, id)
  throw new Fault(
    'host_unreachable',
    `snapshot_id: no host that answers has snapshot ${id}, and ${silent.join(', ')} does not answer; try again when it is back`,
  )
}

const noSnapshot = (app: AppRecord, id: string): Fault =>
  new Fault(
    'not_found',
    `snapshot_id: organization ${app.org.slug} has no snapshot ${id}; list them with: volumes snapshots list VOLUME`,
  )
