import { Fault, isFault, messageOf } from '#core/fault.ts'
import { releaseStates, type Release } from '#spec/release.ts'
import { getAppById, type AppRecord } from '../apps/index.ts'
import type { ControlContext } from '../context.ts'
import { clearLeftovers, leftoversOf } from './leftovers.ts'
import { currentLease, listMachines, placementsOf } from '../machines/index.ts'
import {
  createRelease,
  currentRelease,
  getRelease,
  isOver,
  setReleaseStatus,
} from '../store/releases.ts'

/**
 * A client that was not heard of for so long is gone, once no lease of it is in force. What a client that lives does in the
 * longest silence: calls of up to a minute that follow each other while it waits for a release command, which count as long
 * as they last; lease refreshes each 4 s; 20 s for the last lines of a log; and while it sleeps out a check's grace period it
 * holds a lease of its whole wait timeout. One that was only cut off may come back with its next word.
 */
export const clientSilentMsMax = 60_000
/** When another deploy begins: a client that lives refreshes its leases, of 13 s, each 4 s (MCH-57). */
const leaselessMsMax = 13_000
/** A host that never comes back must not keep a release running for ever. */
const leftoversMsMax = 3_600_000

export interface ClientRelease {
  image: string
  /** As clients write it: `ROLLING`, `ROLLING_ONE` … */
  strategy: string
  definition: Record<string, unknown> | null
  user: string
  /** The token that the client speaks with. */
  tokenId: string
}

/**
 * DEP-1: records a release that its client drives machine by machine. What a dead client left of the release before is cleared
 * up first. Faults: `conflict` while the cloud deploys the app or another client makes its first machines, and after a
 * clearing-up: this client has seen the machines as they were before it.
 */
export async function startClientRelease(
  ctx: ControlContext,
  app: AppRecord,
  release: ClientRelease,
): Promise<Release> {
  for (const before of await openClientReleases(ctx, { appId: app.id })) {
    const cleared = await clearBefore(ctx, app, before)
    if (cleared === 0) continue
    throw new Fault(
      'conflict',
      `release v${before.version}, started by ${before.user}, had been cut off and ${cleared} machines that it left have just been destroyed; deploy again`,
    )
  }
  return createRelease(ctx, {
    appId: app.id,
    driver: 'client',
    status: 'pending',
    strategy: release.strategy.toLowerCase(),
    description: 'Deploy image',
    reason: '',
    imageRef: release.image || null,
    user: release.user,
    tokenId: release.tokenId,
    definition: release.definition,
    input: null,
    refuse: (db) => refuseBesideFirst({ ...ctx, db }, app),
  })
}

/**
 * Deploys at once are kept apart by the leases of the app's machines. Where a client began without machines there are no
 * leases: as long as it is heard, no other deploy begins. Fault `conflict`.
 */
export async function refuseBesideFirst(
  ctx: ControlContext,
  app: Pick<AppRecord, 'id'>,
): Promise<void> {
  const open = await openClientReleases(ctx, { appId: app.id, first: true })
  const held = open.find((release) => silentMs(ctx, release) < leaselessMsMax)
  if (!held) return
  const { version, user, startedAt } = held
  throw new Fault(
    'conflict',
    `release v${version}, started by ${user} at ${startedAt.toISOString()}, is making the first machines of this app; wait until it is over and deploy again. If its client is gone, that is ${leaselessMsMax / 1000} s after its last word`,
  )
}

/** The app of a release, for callers that know only the release. Fault `not_found`. */
export async function appOfRelease(
  ctx: Pick<ControlContext, 'db'>,
  id: string,
): Promise<AppRecord> {
  const row = await ctx.db
    .selectFrom('releases')
    .select('app_id')
    .where('id', '=', id)
    .executeTakeFirst()
  if (!row) throw new Fault('not_found', `release not found: there is no release ${id}`)
  return getAppById(ctx, row.app_id)
}

/**
 * What the client says of its release. Saying the same again is no error, and one that was taken for gone is back with its
 * next word, unless a newer release has taken its place. Faults: `invalid`; `precondition_failed` when it is driven by the
 * server, or is to run again after a newer one.
 */
export async function moveClientRelease(
  ctx: ControlContext,
  app: AppRecord,
  { id, status }: { id: string; status: unknown },
): Promise<Release> {
  const next = releaseStates.find((one) => one === status)
  if (!next || next === 'pending') {
    throw new Fault('invalid', `status must be running, complete, failed or interrupted`)
  }
  const release = await getRelease(ctx, { appId: app.id, id })
  if (release.driver !== 'client') {
    throw new Fault('precondition_failed', `release v${release.version} is driven by the cloud`)
  }
  if (release.status === 'interrupted') {
    const current = await currentRelease(ctx, { appId: app.id })
    if (current && current.version > release.version) {
      if (isOver(next)) return release
      throw new Fault(
        'precondition_failed',
        `release v${release.version} was interrupted and v${current.version} of ${current.user} has taken its place; deploy again`,
      )
    }
    // A client that was interrupted may say so after it had failed: what ended it first stands.
  } else if (isOver(release.status) && isOver(next)) return release
  // A second try has taken the canary of the first for one of the group.
  if (next === 'complete') await clearLeftovers(ctx, app, release, 'made to go')
  await setReleaseStatus(ctx, { id, status: next })
  return getRelease(ctx, { appId: app.id, id })
}

/** Ends the releases whose clients went away without a word, and clears up after them. Returns how many. */
export async function interruptAbandoned(
  ctx: ControlContext,
  silentMsMax = clientSilentMsMax,
): Promise<number> {
  let ended = 0
  for (const release of await openClientReleases(ctx, {})) {
    try {
      if (await endIfGone(ctx, release, silentMsMax)) ended++
    } catch (error) {
      const { id, app } = release
      ctx.log.warn({ release: id, app, error: messageOf(error) }, 'a release is looked at later')
    }
  }
  return ended
}

interface OpenRelease {
  id: string
  version: number
  strategy: string
  user: string
  tokenId: string
  appId: string
  app: string
  startedAt: Date
  saidAt: number
}

/** Those of one app, or of all; with `first` only those that found no machines when they began. */
async function openClientReleases(
  ctx: Pick<ControlContext, 'db'>,
  { appId, first = false }: { appId?: string; first?: boolean },
): Promise<OpenRelease[]> {
  let query = ctx.db
    .selectFrom('releases')
    .innerJoin('apps', 'apps.id', 'releases.app_id')
    .select([
      'releases.id',
      'version',
      'strategy',
      'user',
      'token_id',
      'app_id',
      'apps.name',
      'releases.created_at',
      'updated_at',
    ])
    .where('driver', '=', 'client')
    .where('releases.status', 'in', ['pending', 'running'])
    .where('apps.deleted_at', 'is', null)
    .orderBy('version')
    .limit(1_000)
  if (appId !== undefined) query = query.where('app_id', '=', appId)
  if (first) {
    query = query.where((eb) => {
      const older = eb
        .selectFrom('machine_placements as m')
        .select('m.machine_id')
        .whereRef('m.app_id', '=', 'releases.app_id')
        .whereRef('m.created_at', '<', 'releases.created_at')
        .where('m.status', 'in', ['placing', 'placed'])
      return eb.not(eb.exists(older))
    })
  }
  const rows = await query.execute()
  return rows.map(({ app_id, name, token_id, created_at, updated_at, ...rest }) => ({
    ...rest,
    tokenId: token_id ?? '',
    appId: app_id,
    app: name,
    startedAt: created_at,
    saidAt: updated_at.getTime(),
  }))
}

/** Clears up what a dead client left before another one takes it for machines of the app. Returns how many machines. */
async function clearBefore(
  ctx: ControlContext,
  app: AppRecord,
  release: OpenRelease,
): Promise<number> {
  // Two colours without a lease prove it at once: the client holds the old one's leases for as long as there are both.
  const machines = await listMachines(ctx, app)
  const colours = leftoversOf(release, machines, 'colour').length > 0
  if (colours && !(await leasesRunOut(ctx, app))) return 0
  if (!colours && (await leasedUntil(ctx, app)) !== undefined) return 0
  const silent = silentMs(ctx, release) >= leaselessMsMax
  const cleared = await clearLeftovers(ctx, app, release, silent ? 'all' : 'colour')
  if (cleared === undefined && colours && machines.every((one) => one.host_status === 'ok')) {
    throw new Fault(
      'conflict',
      `release v${release.version}, started by ${release.user}, was cut off and the machines that it left could not be destroyed yet; deploy again in a moment`,
    )
  }
  return cleared ?? 0
}

/** Waits for the leases of a client that may be dead. False when one is refreshed, or is not of the kind that would be. */
async function leasesRunOut(ctx: ControlContext, app: AppRecord): Promise<boolean> {
  const first = await leasedUntil(ctx, app)
  for (let held = first; held !== undefined; held = await leasedUntil(ctx, app)) {
    const leftMs = held - ctx.clock.now()
    if (first === undefined || held > first || leftMs > leaselessMsMax + 1_000) return false
    await ctx.clock.sleep(Math.min(leftMs, 1_000), ctx.stopping).catch((cause: unknown) => {
      const message = `control is stopping and did not begin a release of app ${app.name}; deploy again in a moment`
      throw new Fault('not_available_yet', message, { cause })
    })
  }
  return true
}

const silentMs = (ctx: ControlContext, { app, tokenId, saidAt }: OpenRelease): number =>
  ctx.clock.now() - Math.max(saidAt, ctx.clients.lastHeard(app, tokenId))

/**
 * Ends a release whose client said nothing for so long and holds no lease. What it left is destroyed before the end is
 * written down, so that a death in between only repeats it.
 */
async function endIfGone(
  ctx: ControlContext,
  release: OpenRelease,
  silentMsMax: number,
): Promise<boolean> {
  const { id, version, tokenId } = release
  if (silentMs(ctx, release) < silentMsMax) return false
  const app = await getAppById(ctx, release.appId)
  const leasedMs = await leasedUntil(ctx, app)
  if (leasedMs !== undefined) {
    // Not looked at again before it has run out.
    ctx.clients.heardAt(app.name, tokenId, leasedMs - silentMsMax)
    return false
  }
  const cleared = await clearLeftovers(ctx, app, release, 'all')
  if (cleared === undefined && silentMs(ctx, release) < leftoversMsMax) return false
  const message = `Release v${version} is interrupted: its client was not heard of for ${Math.round(silentMsMax / 1000)} s and holds no lease; deploy again to go on`
  await setReleaseStatus(ctx, { id, status: 'interrupted', message })
  return true
}

/** When the last lease on the app's machines runs out, in milliseconds since the epoch; undefined when there is none. */
async function leasedUntil(ctx: ControlContext, app: AppRecord): Promise<number | undefined> {
  let last: number | undefined
  for (const { machine_id } of await placementsOf(ctx, app)) {
    try {
      // Hosts say it in whole seconds, rounded down.
      const untilMs = ((await currentLease(ctx, app, machine_id)).expires_at + 1) * 1000
      if (untilMs > ctx.clock.now()) last = Math.max(last ?? 0, untilMs)
    } catch (error) {
      // Nobody holds it, or its host is silent: then its client cannot refresh it either.
      if (!isFault(error)) throw error
    }
  }
  return last
}
