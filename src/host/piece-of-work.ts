import type { Agent, Change } from './agent.ts'
import type { LifeEvent } from './machine-life.ts'

/** How a piece of work on a machine ended: what is written down next. */
export interface Outcome {
  event: LifeEvent
  change?: Change
}

/** What work under way listens to: `soft` ends a wait before a restart, `hard` any wait, `stop` also a suspend. */
export type Interrupts = Record<'soft' | 'stop' | 'hard', AbortController>

export const newInterrupts = (): Interrupts => ({
  soft: new AbortController(),
  stop: new AbortController(),
  hard: new AbortController(),
})

/** False when the signal ended the sleep. */
export async function slept(agent: Agent, ms: number, signal: AbortSignal): Promise<boolean> {
  return agent.clock.sleep(ms, signal).then(
    () => true,
    () => false,
  )
}

const reviveMs = { first: 500, most: 30_000 }

/** The host is to blame, and may be for long: the tries of MCH-75 are for ends of the machine's own. */
export function revivalDelayMs(agent: Agent, failures: number): number {
  const base = Math.min(reviveMs.most, reviveMs.first * 2 ** Math.min(failures, 10))
  return Math.round(base * (0.75 + agent.random() * 0.5))
}
