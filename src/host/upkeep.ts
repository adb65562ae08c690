import { messageOf } from '#core/fault.ts'
import type { Agent } from './agent.ts'
import { verifyRuns } from './recover.ts'
import { keepVolumes } from './volume-upkeep.ts'

const everyMs = 60_000
/** MCH-77: a destroyed machine is readable for at least a day. */
const destroyedKeptMs = 48 * 3_600_000

/** What is done from time to time: old records, old logs, volumes and snapshots, images that nobody uses. */
export function startUpkeep(agent: Agent): () => void {
  const timer = setInterval(() => {
    upkeep(agent).catch((error) => {
      if (agent.mode === 'open') agent.log.error({ error: messageOf(error) }, 'upkeep failed')
    })
  }, everyMs)
  return () => clearInterval(timer)
}

/** One at a time: on a host with much to do a pass may take longer than the time between two. */
export function upkeep(agent: Agent): Promise<void> {
  return agent.passes.run('upkeep', () => pass(agent))
}

async function pass(agent: Agent): Promise<void> {
  const now = agent.clock.now()
  await verifyRuns(agent)
  const images = new Set<string>()
  for (const record of agent.store.machines.all()) {
    const { id, destroyedAt } = record
    if (destroyedAt !== null && destroyedAt < now - destroyedKeptMs) {
      agent.store.transaction(() => agent.store.machines.purge(id))
      agent.store.history.forget(id)
      agent.spool.forget(id)
      continue
    }
    if (destroyedAt === null) images.add(record.image.digest)
    await agent.spool.sweep(id)
  }
  await keepVolumes(agent)
  await agent.images.collect(images)
}
