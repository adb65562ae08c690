import type { Hook } from './hook.ts'

/**
 * The machine's own network namespace and its two addresses. A stopped machine keeps them: it starts sooner, and a
 * connection that still comes is refused at once instead of getting lost. A new one is made while the runtime prepares
 * the root: only what runs in it has to wait.
 */
export const networkHook: Hook = {
  name: 'network',
  async prestart(launch) {
    const { agent, record } = launch
    const { id, index } = record
    const request = { id, network: record.app.network, index }
    launch.net = agent.net.place(request)
    launch.netReady = agent.net.attach(request)
    launch.netReady.catch(() => {}) // The runtime hook waits for it.
  },
  async poststop(agent, record) {
    if (record.life.state === 'destroying') await agent.net.detach(record.id)
  },
}
