import { Fault } from '#core/fault.ts'
import type { Snapshot } from '#spec/volume.ts'
import { findApp, listApps } from '#control/apps/index.ts'
import { appsReadBy, requireApp } from '#control/auth/index.ts'
import { findMachineApp, findVolumeApp, getMachine } from '#control/machines/index.ts'
import { getVolume, listSnapshots } from '#control/volumes/index.ts'
import { appNamed, connection, notYet, orgOfId, type Graph } from './context.ts'
import { appView, machineView } from './views.ts'

interface AppsArgs {
  organizationId?: string | null
  role?: string | null
}

const snapshotView = ({ id, size, digest, created_at, status, retention_days }: Snapshot) => ({
  id,
  // Clients read it as text.
  size: String(size),
  digest,
  status,
  createdAt: created_at,
  retentionDays: retention_days,
})

export const appQueries = {
  app: async (args: { name?: string; id?: string; internalId?: string }, graph: Graph) =>
    appView(graph, await appNamed(graph, args.name ?? args.id ?? '', 'read')),

  apps: async (args: AppsArgs, graph: Graph) => {
    const org = args.organizationId ? await orgOfId(graph, args.organizationId, 'know') : undefined
    const apps = await listApps(graph.ctx, {
      ...appsReadBy(graph.caller),
      ...(org ? { orgId: org.id } : {}),
      ...(args.role ? { role: args.role } : {}),
    })
    return connection(apps.map((app) => appView(graph, app)))
  },

  appNameAvailable: async (args: { name: string }, graph: Graph) =>
    (await findApp(graph.ctx, args.name)) === undefined,

  canPerformBluegreenDeployment: async (args: { name: string }, graph: Graph) => {
    await appNamed(graph, args.name, 'read')
    return true
  },

  machine: async (args: { machineId: string }, graph: Graph) => {
    const found = await findMachineApp(graph.ctx, args.machineId)
    if (!found) {
      throw new Fault('not_found', `machine not found: there is no machine ${args.machineId}`)
    }
    requireApp(graph.caller, found.app, 'read')
    const machine = await getMachine(graph.ctx, found.app, args.machineId)
    return machineView(graph, found.app, machine)
  },

  volume: async (args: { id: string }, graph: Graph) => {
    const app = await findVolumeApp(graph.ctx, args.id)
    if (!app) throw new Fault('not_found', `volume not found: there is no volume ${args.id}`)
    requireApp(graph.caller, app, 'read')
    const { id, state } = await getVolume(graph.ctx, app, args.id)
    return {
      __typename: 'Volume',
      id,
      state,
      app: () => appView(graph, app),
      snapshots: async () => {
        const snapshots = await listSnapshots(graph.ctx, app, args.id)
        return connection(snapshots.map(snapshotView))
      },
    }
  },
}

export const appMutations = {
  moveApp: () => notYet('moving an app to another organization is'),
}
