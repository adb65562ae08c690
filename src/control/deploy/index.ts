import type { DeployProgress, Release } from '#spec/release.ts'
import type { AppRecord } from '../apps/index.ts'
import type { ControlContext } from '../context.ts'
import * as releases from '../store/releases.ts'

export { applySecrets, resumeDeploys, startDeploy } from './deploys.ts'
export { resolveImage } from './resolve-image.ts'

type Store = Pick<ControlContext, 'db'>
type AppId = Pick<AppRecord, 'id'>

/** Newest first. */
export const listReleases = (ctx: Store, app: AppId, limit?: number): Promise<Release[]> =>
  releases.listReleases(ctx, { appId: app.id, ...(limit === undefined ? {} : { limit }) })

/** Fault `not_found`. */
export const getRelease = (ctx: Store, app: AppId, id: string): Promise<Release> =>
  releases.getRelease(ctx, { appId: app.id, id })

/**
 * A release's progress from its first line. With `follow` it goes on until the line that carries a status, or until the
 * signal. Fault `not_found` at the first step.
 */
export const followProgress = (
  ctx: Pick<ControlContext, 'db' | 'clock'>,
  app: AppId,
  id: string,
  options: { follow: boolean; signal: AbortSignal },
): AsyncGenerator<DeployProgress> => releases.followProgress(ctx, { appId: app.id, id, ...options })

/** TOML-3: the definition of the newest release that is complete or running; undefined when there is none. */
export async function currentDefinition(
  ctx: Store,
  app: AppId,
): Promise<Record<string, unknown> | undefined> {
  const release = await releases.currentRelease(ctx, { appId: app.id })
  return release?.definition ?? undefined
}

/** A release that its client drives through the Machines API: recorded, never resumed. DEP-1. */
export const createClientRelease = (
  ctx: Store,
  app: AppId,
  release: Pick<
    releases.NewRelease,
    'strategy' | 'description' | 'reason' | 'imageRef' | 'user' | 'definition'
  >,
): Promise<Release> =>
  releases.createRelease(ctx, {
    ...release,
    appId: app.id,
    driver: 'client',
    status: 'pending',
    input: null,
  })

/** What the client says became of it. Fault `precondition_failed` when it is over already. */
export async function setClientReleaseStatus(
  ctx: Store,
  app: AppId,
  id: string,
  status: Release['status'],
): Promise<Release> {
  await releases.getRelease(ctx, { appId: app.id, id })
  await releases.setReleaseStatus(ctx, { id, status })
  return releases.getRelease(ctx, { appId: app.id, id })
}
