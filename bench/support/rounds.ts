/** The numbers of one contender, one for each round. */
export type Samples = number[]

export function median(samples: readonly number[]): number {
  const sorted = [...samples].sort((a, b) => a - b)
  const at = sorted.length >> 1
  if (sorted.length % 2 === 1) return sorted[at] ?? NaN
  return ((sorted[at - 1] ?? NaN) + (sorted[at] ?? NaN)) / 2
}

export async function timedMs(work: () => Promise<unknown>): Promise<number> {
  const begun = performance.now()
  await work()
  return performance.now() - begun
}

/** Lets every contender run once in each round, so that the noise of the machine falls on all of them. */
export async function inTurns(
  rounds: number,
  contenders: Record<string, () => Promise<number>>,
): Promise<Record<string, Samples>> {
  const results: Record<string, Samples> = {}
  for (let round = 0; round < rounds; round++) {
    for (const [name, run] of Object.entries(contenders)) (results[name] ??= []).push(await run())
  }
  return results
}

export function option(name: string, otherwise: number): number {
  const at = process.argv.indexOf(`--${name}`)
  return at === -1 ? otherwise : Number(process.argv[at + 1])
}
