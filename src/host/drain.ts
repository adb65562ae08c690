import type { Agent } from './agent.ts'
import type { MachineRecord } from './store/index.ts'

const appliedMs = 2_000

/**
 * Waits until no edge sends the machine anything more: first until every live edge has the row that says so, then until
 * what is in flight is answered. A limit on both, so that a stuck edge or an endless request delays and never prevents.
 */
export async function drain(
  agent: Agent,
  record: MachineRecord,
  options: { timeoutMs: number; signal: AbortSignal },
): Promise<void> {
  const row = agent.rows.get(record.id)
  if (!row || !record.config.services?.length) return
  const { edges } = agent
  const { signal } = options
  const applied = () => edges.applied(record.id, row.counter)
  await untilWord(agent, applied, { timeoutMs: appliedMs, signal })
  const idle = () => edges.sessions(record.id) === 0
  await untilWord(agent, idle, { timeoutMs: options.timeoutMs, signal })
}

/** True once `look` is, asked at each word of an edge; false when the time is over or the signal ended the wait. */
export function untilWord(
  agent: Agent,
  look: () => boolean,
  options: { timeoutMs: number; signal?: AbortSignal },
): Promise<boolean> {
  if (look()) return Promise.resolve(true)
  return new Promise((resolve) => {
    const finish = (answer: boolean) => {
      clearTimeout(timer)
      clearInterval(again)
      off()
      options.signal?.removeEventListener('abort', giveUp)
      resolve(answer)
    }
    const giveUp = () => finish(false)
    const check = () => {
      if (look()) finish(true)
    }
    const off = agent.edges.onWord(check)
    const timer = setTimeout(giveUp, options.timeoutMs)
    // An edge that dies says no word, but stops being a live one.
    const again = setInterval(check, 250)
    options.signal?.addEventListener('abort', giveUp, { once: true })
    if (options.signal?.aborted) giveUp()
  })
}
