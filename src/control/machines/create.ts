import { Fault, isFault } from '#core/fault.ts'
import { generatedName, newMachineId } from '#core/ids.ts'
import { limits } from '#core/limits.ts'
import type { HostCreate } from '#spec/host-api.ts'
import type { Machine } from '#spec/machine.ts'
import { appRef, markDeployed, openSecrets, type AppRecord } from '../apps/index.ts'
import type { ControlContext } from '../context.ts'
import { callHost, freshHosts, knownRegions, type HostRef } from '../hosts/index.ts'
import { place, regionPreferences, regionsOf } from '../schedule/index.ts'
import { isUniqueViolation } from '../store/index.ts'
import { findVolume } from '../volumes/index.ts'
import {
  confirmPlacement,
  hostsOfApp,
  placementsOf,
  recordPlacement,
  setPlacementStatus,
} from './placements.ts'
import { getMachine } from './read.ts'
import { destroyUnwanted } from './janitor.ts'
import { notePushed } from './secrets-push.ts'
import { oneAtATime } from './one-at-a-time.ts'
import { checkImageAccess, checkMachineInput, type CheckedInput } from './validate.ts'

export interface CreateOptions {
  /** Who owns the lease that the input may ask for: the caller's e-mail. */
  owner: string
  source?: 'user' | 'proxy' | 'flyd'
}

/** A host may pull and unpack a large image before it answers. */
const createTimeoutMs = 10 * 60_000
/** Hosts tried when one turns out to be full or silent. */
const hostsTriedMax = 3

/**
 * MCH-20…25: makes a machine and, unless `skip_launch`, starts it. `nonce` is in the answer when the input asked for a
 * lease. Faults: `invalid`, `name_taken`, `precondition_failed`, `insufficient_capacity`, `limit_reached`, and what the
 * host says of the image or the start.
 */
export async function createMachine(
  ctx: ControlContext,
  app: AppRecord,
  raw: unknown,
  options: CreateOptions,
): Promise<Machine> {
  const checked = checkMachineInput(app, raw)
  await checkImageAccess(ctx, app, checked.input.config.image)
  const pinned = await pinnedHost(ctx, app, checked)
  const preferences = pinned ? [pinned.region] : regionsWanted(ctx, checked.input.region)
  const secrets = checked.input.skip_secrets ? undefined : await openSecrets(ctx, app)
  const unfit = new Map<string, unknown>()
  for (let attempt = 1; ; attempt++) {
    const placed = await oneAtATime(app.id, () =>
      reserve(ctx, app, checked, { preferences, pinned: pinned?.host_id, without: unfit }),
    ).catch((error: unknown) => {
      // No other host has room: what the first one said is the reason.
      throw unfit.values().next().value ?? error
    })
    const body: HostCreate = {
      id: placed.id,
      app: appRef(app),
      input: { ...checked.input, name: placed.name, region: placed.region },
      owner: options.owner,
      ...(secrets ? { secrets } : {}),
    }
    let machine: Machine
    try {
      machine = await callHost<Machine>(ctx, placed, {
        method: 'POST',
        path: '/v1/machines',
        body,
        timeoutMs: createTimeoutMs,
        repeatable: !pinned,
        source: options.source ?? 'user',
      })
    } catch (error) {
      // Whatever the host may have kept of it, the janitor destroys; what it never made, it forgets.
      await setPlacementStatus(ctx, placed.id, 'doomed')
      const elsewhere =
        isFault(error, 'host_unreachable') || isFault(error, 'insufficient_capacity')
      if (!elsewhere || pinned || attempt >= hostsTriedMax) throw error
      ctx.log.warn({ host: placed.host_id, machine: placed.id }, 'create failed, trying another')
      unfit.set(placed.host_id, error)
      continue
    }
    if (!(await confirmPlacement(ctx, machine))) {
      await destroyUnwanted(ctx, placed)
      throw new Fault('conflict', `app ${app.name} was deleted while its machine was made`)
    }
    if (app.status === 'pending') await markDeployed(ctx, app)
    if (secrets) await notePushed(ctx, app, placed.host_id, secrets.version)
    return machine
  }
}

/** MCH-24: the host of the volume that the config mounts. */
async function pinnedHost(
  ctx: ControlContext,
  app: AppRecord,
  { input }: CheckedInput,
): Promise<(HostRef & { region: string }) | undefined> {
  const id = input.config.mounts?.[0]?.volume
  if (!id) return undefined
  const volume = await findVolume(ctx, app, id)
  if (!volume) {
    throw new Fault('invalid', `config.mounts: app ${app.name} has no volume ${id}`)
  }
  const wanted = regionPreferences(input.region)
  const fits =
    wanted.length === 0 || wanted.some((one) => regionsOf(one, [volume.region]).length > 0)
  if (!fits) {
    throw new Fault(
      'invalid',
      `volume ${id} is in region ${volume.region}, not in ${input.region}; a machine runs where its volume is`,
    )
  }
  return volume
}

/** MCH-22. Without a region: the first of this cloud. Fault `invalid` when a code means nothing here. */
function regionsWanted(ctx: ControlContext, region: string | null | undefined): string[] {
  const known = knownRegions(ctx)
  const wanted = regionPreferences(region)
  const usable = wanted.filter((one) => regionsOf(one, known).length > 0)
  if (wanted.length > 0 && usable.length === 0) {
    throw new Fault(
      'invalid',
      `region ${region} is not known here; regions of this cloud: ${known.toSorted().join(', ')}`,
    )
  }
  return usable.length > 0 ? usable : known.slice(0, 1)
}

/** Picks the host and records the placement. Runs one at a time for an app, so that its machines spread. */
async function reserve(
  ctx: ControlContext,
  app: AppRecord,
  { input, guest }: CheckedInput,
  where: {
    preferences: string[]
    pinned: string | undefined
    without: ReadonlyMap<string, unknown>
  },
): Promise<HostRef & { id: string; name: string; region: string }> {
  const neighbours = await hostsOfApp(ctx, app)
  if (neighbours.length >= limits.machinesPerAppMax) {
    throw new Fault(
      'limit_reached',
      `app ${app.name} has ${neighbours.length} machines, the most an app may have`,
    )
  }
  const hosts = (await freshHosts(ctx)).filter((row) => !where.without.has(row.host))
  const placement = place({
    hosts,
    now: ctx.clock.now(),
    demand: {
      regions: where.preferences,
      guest,
      count: 1,
      nearHosts: neighbours.map((one) => one.host_id),
      ...(where.pinned ? { pinnedHost: where.pinned } : {}),
    },
  })
  if ('error' in placement) throw new Fault('insufficient_capacity', placement.error)
  const row = hosts.find((host) => host.host === placement.hosts[0])
  if (!row) throw new Fault('internal', 'placement named a host that is not there')
  const host = { host_id: row.host, host_api: row.api, region: row.region, id: newMachineId() }
  return { ...host, name: await recordNamed(ctx, app, input.name || undefined, host) }
}

/** MCH-10: records under the wanted name, or under a generated one that is free in the app. */
async function recordNamed(
  ctx: ControlContext,
  app: AppRecord,
  wanted: string | undefined,
  host: HostRef & { id: string; region: string },
): Promise<string> {
  for (let attempt = 0; attempt < 20; attempt++) {
    const name = wanted ?? generatedName()
    try {
      await recordPlacement(ctx, app, { ...host, name })
      return name
    } catch (error) {
      if (!isUniqueViolation(error, 'machine_live_name')) throw error
      // A machine that destroyed itself holds its name until somebody looks.
      if (wanted !== undefined && (attempt > 0 || !(await holderIsGone(ctx, app, wanted)))) break
    }
  }
  throw new Fault('name_taken', `app ${app.name} already has a machine named ${wanted ?? '(any)'}`)
}

async function holderIsGone(ctx: ControlContext, app: AppRecord, name: string): Promise<boolean> {
  const holder = (await placementsOf(ctx, app)).find((placement) => placement.name === name)
  if (!holder) return false
  return (await getMachine(ctx, app, holder.machine_id)).state === 'destroyed'
}
