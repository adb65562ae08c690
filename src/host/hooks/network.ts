import type { Hook } from './hook.ts'

/**
 * The machine's own network namespace and its two addresses. A stopped machine keeps them: it starts sooner, and a
 * connection that still comes is refused at once instead of getting lost.
 */
export const networkHook: Hook = {
  name: 'network',
  async prestart(launch) {
    const { agent, record } = launch
    const { id, index } = record
    launch.net = await agent.net.attach({ id, network: record.app.network, index })
  },
  async poststop(agent, record) {
    if (record.life.state === 'destroying') await agent.net.detach(record.id)
  },
}
