import type { RoutedResult } from '#spec/host-api.ts'
import type { Agent } from './agent.ts'
import { untilWord } from './drain.ts'

/** Waits until every live edge has the machine's present row in effect, whichever row that is by then. */
export async function routed(agent: Agent, id: string, timeoutMs: number): Promise<RoutedResult> {
  agent.store.machines.get(id)
  const look = () => {
    const row = agent.rows.get(id)
    return row === undefined || agent.edges.applied(id, row.counter)
  }
  const done = await untilWord(agent, look, { timeoutMs })
  return { routed: done, edges: agent.edges.live().length }
}
