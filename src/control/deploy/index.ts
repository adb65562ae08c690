import type { DeployProgress, Release } from '#spec/release.ts'
import type { AppRecord } from '../apps/index.ts'
import type { ControlContext } from '../context.ts'
import * as follow from '../store/release-follow.ts'
import * as releases from '../store/releases.ts'

export { ClientContacts } from './client-contact.ts'
export { applySecrets, resumeDeploys, startDeploy } from './deploys.ts'
export { currentReleaseTimes } from './release-times.ts'
export {
  appOfRelease,
  clientSilentMsMax,
  interruptAbandoned,
  moveClientRelease,
  startClientRelease,
  type ClientRelease,
} from './client-releases.ts'

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
): AsyncGenerator<DeployProgress> => follow.followProgress(ctx, { appId: app.id, id, ...options })

/** TOML-3: the definition of the newest release that is complete or running; undefined when there is none. */
export async function currentDefinition(
  ctx: Store,
  app: AppId,
): Promise<Record<string, unknown> | undefined> {
  const release = await releases.currentRelease(ctx, { appId: app.id })
  return release?.definition ?? undefined
}

/** The newest release that is complete or running; undefined before the first deploy. */
export const currentRelease = (ctx: Store, app: AppId): Promise<Release | undefined> =>
  releases.currentRelease(ctx, { appId: app.id })
