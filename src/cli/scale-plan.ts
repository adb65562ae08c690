import { Fault } from '#core/fault.ts'
import type { Machine } from '#spec/machine.ts'

export interface GroupCount {
  count: number
  /** `+2` and `-1`: from what there is. */
  relative: boolean
}

/** `3`, `+1`, or `web=3 worker=1`. DEP-30. */
export function parseCounts(args: readonly string[], group: string): Map<string, GroupCount> {
  const counts = new Map<string, GroupCount>()
  for (const arg of args) {
    const [left = '', right] = arg.split('=')
    const [name, text] = right === undefined ? [group, left] : [left, right]
    if (!/^[+-]?\d+$/.test(text) || name === '' || (right === undefined && args.length > 1)) {
      throw new Fault(
        'bad_request',
        `"${arg}" is no count; write a number, or GROUP=NUMBER for several process groups`,
      )
    }
    counts.set(name, { count: Number(text), relative: /^[+-]/.test(text) })
  }
  return counts
}

/**
 * How many machines each region gains or loses so that there are `expected` in all: even growth over the regions in
 * their order, loss from the last region first, never more than `maxPerRegion`. DEP-30.
 */
export function regionChanges(options: {
  expected: number
  current: ReadonlyMap<string, number>
  regions: readonly string[]
  maxPerRegion: number | undefined
}): Map<string, number> {
  const { expected, current } = options
  const regions = [...new Set(options.regions.length > 0 ? options.regions : current.keys())]
  const most = options.maxPerRegion ?? Number.POSITIVE_INFINITY
  if (regions.length * most < expected || regions.length === 0) {
    throw new Fault(
      'bad_request',
      'the number of regions by the maximum machines per region is fewer than the expected total; name more with --region',
    )
  }
  const have = new Map(regions.map((region) => [region, Math.min(current.get(region) ?? 0, most)]))
  const total = () => [...have.values()].reduce((sum, count) => sum + count, 0)
  const change = (region: string, by: number) => have.set(region, (have.get(region) ?? 0) + by)
  for (let i = 0; total() < expected; i++) {
    const region = regions[i % regions.length] as string
    if ((have.get(region) ?? 0) < most) change(region, 1)
  }
  for (let i = 1; total() > expected; i++) {
    const region = regions[regions.length - 1 - ((i - 1) % regions.length)] as string
    if ((have.get(region) ?? 0) > 0) change(region, -1)
  }
  const changes = regions.map((region): [string, number] => [
    region,
    (have.get(region) ?? 0) - (current.get(region) ?? 0),
  ])
  return new Map(changes.filter(([, delta]) => delta !== 0))
}

/** Whom a scale-down takes: machines that do not run, then the newest. */
export function surplus(machines: readonly Machine[], count: number): Machine[] {
  const runs = (machine: Machine) => (machine.state === 'started' ? 1 : 0)
  return machines
    .toSorted((a, b) => runs(a) - runs(b) || Date.parse(b.created_at) - Date.parse(a.created_at))
    .slice(0, count)
}
