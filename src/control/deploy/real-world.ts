import { isFault } from '#core/fault.ts'
import type { AppRecord } from '../apps/index.ts'
import type { ControlContext } from '../context.ts'
import {
  acquireLease,
  appLogs,
  createMachine,
  destroyMachine,
  getMachine,
  listMachines,
  machineAction,
  machineProcesses,
  machineRouted,
  releaseLease,
  setMachineMetadata,
  updateMachine,
  waitMachine,
} from '../machines/index.ts'
import { appendProgress } from '../store/release-progress.ts'
import { saveStep } from '../store/release-runs.ts'
import { createVolume, listVolumes } from '../volumes/index.ts'
import type { DeployWorld } from './world.ts'

/** The world of one release: the machines and volumes of its app, and the release's own record. */
export function realWorld(
  ctx: ControlContext,
  app: AppRecord,
  release: { id: string; version: number; user: string },
): DeployWorld {
  const owner = release.user
  return {
    clock: ctx.clock,
    listMachines: () => listMachines(ctx, app),
    getMachine: (id) => getMachine(ctx, app, id),
    createMachine: (input) => createMachine(ctx, app, input, { owner, source: 'user' }),
    updateMachine: (id, input, nonce) => updateMachine(ctx, app, id, input, { nonce }),
    startMachine: async (id) => {
      await machineAction(ctx, app, id, 'start')
    },
    destroyMachine: async (id, nonce) => {
      try {
        await destroyMachine(ctx, app, id, { kill: true, nonce })
      } catch (error) {
        if (!isFault(error, 'not_found')) throw error
      }
    },
    waitMachine: (id, { states, timeoutMs, instanceId }) =>
      waitMachine(ctx, app, id, {
        states,
        timeoutSeconds: Math.max(1, Math.min(60, Math.ceil(timeoutMs / 1000))),
        instanceId,
        signal: ctx.stopping,
      }),
    acquireLease: async (id, { ttlSeconds, nonce }) => {
      const description = `deploy of release v${release.version}`
      const lease = await acquireLease(ctx, app, id, { ttlSeconds, nonce, owner, description })
      return lease.nonce
    },
    releaseLease: (id, nonce) => releaseLease(ctx, app, id, { nonce }),
    setMetadata: (id, pair, nonce) => setMachineMetadata(ctx, app, id, pair, { nonce }),
    routed: async (id, timeoutMs) => (await machineRouted(ctx, app, id, timeoutMs)).routed,
    processes: (id) => machineProcesses(ctx, app, id),
    async *logs(id, { limit, follow, signal }) {
      yield* appLogs(ctx, app, { instance: id, limit, follow, signal })
    },
    listVolumes: () => listVolumes(ctx, app),
    createVolume: (input) => createVolume(ctx, app, input),
    say: (level, message, machine) =>
      appendProgress(ctx, release.id, { level, message, ...(machine ? { machine } : {}) }),
    saveStep: (step) => saveStep(ctx, release.id, step),
  }
}
