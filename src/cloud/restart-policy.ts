/** How a part that died is started again: soon at first, then ever more slowly, and for ever. Pure. */
export interface Deaths {
  /** In a row: a life longer than `steadyMs` starts the count anew. */
  count: number
}

export const steadyMs = 30_000
/** So many quick deaths in a row are called a crash loop, loudly. */
export const crashLoopAfter = 8
const firstDelayMs = 100
const delayMsMax = 10_000
const crashLoopDelayMs = 60_000

export function afterDeath(
  deaths: Deaths,
  livedMs: number,
): { deaths: Deaths; delayMs: number; crashLoop: boolean } {
  const count = livedMs >= steadyMs ? 1 : deaths.count + 1
  const crashLoop = count >= crashLoopAfter
  // The first death of a steady part costs nothing: its users are waiting.
  const doubled = count === 1 ? 0 : Math.min(firstDelayMs * 2 ** (count - 2), delayMsMax)
  return { deaths: { count }, delayMs: crashLoop ? crashLoopDelayMs : doubled, crashLoop }
}
