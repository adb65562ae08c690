import { defaultRegions, type Region } from '#spec/regions.ts'

/** REG-2: a name for several regions, usable wherever a machine's region is asked for. */
const aliases: Record<string, (region: Region) => boolean> = {
  any: () => true,
  na: (region) => region.geo_region === 'north_america',
  us: (region) => region.geo_region === 'north_america' && region.name.includes('(US)'),
  usa: (region) => region.geo_region === 'north_america' && region.name.includes('(US)'),
  eu: (region) => region.geo_region === 'europe',
  sa: (region) => region.geo_region === 'south_america',
  apac: (region) => region.geo_region === 'asia_pacific',
}

/**
 * The regions that one entry of a preference list stands for, out of `known`: a code stands for itself, an alias for
 * its area. A known code that the built-in list lacks belongs to `any` alone. MCH-22, REG-2.
 */
export function regionsOf(entry: string, known: readonly string[]): string[] {
  const name = entry
    .trim()
    .replaceAll(/^\[|\]$/g, '')
    .toLowerCase()
  const alias = aliases[name]
  if (!alias) return known.filter((code) => code === name)
  if (name === 'any') return [...known]
  const listed = new Set(defaultRegions.filter(alias).map((region) => region.code))
  return known.filter((code) => listed.has(code))
}

/** Splits what a client wrote as `region` into preferences; empty when nothing was written. MCH-22. */
export function regionPreferences(region: string | null | undefined): string[] {
  return (region ?? '')
    .split(',')
    .map((entry) => entry.trim())
    .filter((entry) => entry !== '')
}
