import { Fault } from '#core/fault.ts'
import type { App } from '#spec/app.ts'
import type { Release } from '#spec/release.ts'
import { part, type Api } from './api.ts'

export interface Viewer {
  email: string
  organizations: { slug: string; name: string }[]
}

export const appPath = (app: string) => `/v1/apps/${part(app)}`

/** The app, or a Fault that says how to get one of that name. */
export async function getApp(api: Api, name: string): Promise<App> {
  const app = await api.find<App>(appPath(name))
  if (app) return app
  throw new Fault(
    'not_found',
    `Could not find App "${name}". Create it with: hangar apps create ${name} (or hangar launch); see what there is with: hangar apps list`,
  )
}

/** The apps of every organization the token sees, or of one, by name. */
export async function listApps(api: Api, org?: string): Promise<App[]> {
  const slugs = org
    ? [org]
    : (await api.get<Viewer>('/api/v1/viewer')).organizations.map(({ slug }) => slug)
  const lists: App[][] = []
  for (const slug of slugs) {
    lists.push((await api.get<{ apps: App[] }>(`/v1/apps?org_slug=${part(slug)}`)).apps)
  }
  return lists.flat().sort((a, b) => (a.name < b.name ? -1 : 1))
}

/** The organization that `--org` names, or the only one, or `personal`. */
export async function chooseOrg(
  api: Api,
  wanted: string | undefined,
): Promise<{ slug: string; name: string }> {
  const { organizations } = await api.get<Viewer>('/api/v1/viewer')
  const slugs = organizations.map(({ slug }) => slug).join(', ')
  const chosen = wanted
    ? organizations.find(({ slug, name }) => slug === wanted || name === wanted)
    : (organizations.find(({ slug }) => slug === 'personal') ?? organizations[0])
  if (chosen) return chosen
  throw new Fault(
    'not_found',
    wanted
      ? `there is no organization "${wanted}" for this token; there is: ${slugs}`
      : 'this token sees no organization; use another one',
  )
}

/** Newest first. */
export const listReleases = async (api: Api, app: string): Promise<Release[]> =>
  (await api.get<{ releases: Release[] }>(`/api/v1/apps/${part(app)}/releases`)).releases
