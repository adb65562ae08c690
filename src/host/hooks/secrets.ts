import type { Hook } from './hook.ts'

/** SEC-2: the newest secrets that this host knows, read at every cold start. */
export const secretsHook: Hook = {
  name: 'secrets',
  async prestart(launch) {
    launch.secrets = launch.agent.store.secrets.get(launch.record.app.id).values
  },
}
