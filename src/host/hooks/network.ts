import type { Hook } from './hook.ts'

/** The machine's own network namespace and its two addresses. */
export const networkHook: Hook = {
  name: 'network',
  async prestart(launch) {
    const { agent, record } = launch
    const { id, index } = record
    launch.net = await agent.net.attach({ id, network: record.app.network, index })
  },
  async poststop(agent, record) {
    await agent.net.detach(record.id)
  },
}
