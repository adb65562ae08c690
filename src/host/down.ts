import { messageOf } from '#core/fault.ts'
import { announce, apply, type Agent } from './agent.ts'
import { haltFor } from './config-rules.ts'
import { keepsRoot } from './kept-root.ts'
import { workOf } from './machine-life.ts'
import { restsOnDisk } from './runtime-choice.ts'
import { operate } from './work.ts'

/**
 * Takes the host down: every machine that is up is stopped and marked to start again with the host, then its networks
 * and mounts are removed. Nothing new is begun meanwhile.
 */
export async function takeDown(agent: Agent): Promise<void> {
  const live = [...agent.store.machines.all()].filter((record) => record.destroyedAt === null)
  const stops = live.map(({ id }) => {
    const begin = () => {
      const record = agent.store.machines.get(id)
      const { state } = record.life
      if (state !== 'started' && state !== 'restarting') return
      const events = [{ type: 'stop', status: 'stopping', source: 'flyd' } as const]
      const halt = haltFor(record.config)
      const change = { patch: { startWithHost: true }, events }
      apply(agent, record, { type: 'stop', halt, withHost: true }, change)
    }
    return operate(agent, id, begin, 'soft')
  })
  agent.mode = 'down'
  await Promise.allSettled(stops)
  await agent.queue.idle()
  for (const { id } of live) {
    const record = agent.store.machines.get(id)
    if (workOf(record.life.state)) agent.log.warn({ machine: id }, 'a machine is left half way')
    announce(agent, record)
    // Its memory is on the disk, and its volume stays as that memory knows it.
    if (restsOnDisk(agent, record)) continue
    // A frozen machine keeps nothing over a host that is down.
    if (record.life.state === 'suspended') {
      await agent.driver.destroy(id, { keepRoot: keepsRoot(record) })
    }
    for (const mount of record.config.mounts ?? []) {
      if (mount.volume) await agent.volumes.unmount(mount.volume)
    }
  }
  await agent.driver
    .releaseUnused()
    .catch((error: unknown) =>
      agent.log.warn({ error: messageOf(error) }, 'something of the runtime is left'),
    )
  await agent.net
    .destroyAll()
    .catch((error: unknown) => agent.log.warn({ error: messageOf(error) }, 'a network is left'))
}
