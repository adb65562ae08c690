import type { FlyCompute, FlyConfig } from './fly-toml-schema.ts'

/** TOML-60: the groups of machines that a config describes, in byte order; `app` alone without `[processes]`. */
export function processGroups(config: FlyConfig): string[] {
  const names = Object.keys(config.processes ?? {})
  return names.length === 0 ? ['app'] : names.toSorted()
}

/** TOML-61. */
export function defaultGroup(config: FlyConfig): string {
  const groups = processGroups(config)
  return groups.includes('app') ? 'app' : (groups[0] as string)
}

/** Whether a section with this `processes` list belongs to the group; without one, the default group has it. TOML-61. */
export function belongsTo(
  config: FlyConfig,
  group: string,
  section: { processes?: string[] | undefined },
): boolean {
  return section.processes?.length
    ? section.processes.includes(group)
    : group === defaultGroup(config)
}

/** TOML-61: a `[[vm]]` that names the group, otherwise the one that names none. */
export function computeFor(config: FlyConfig, group: string): FlyCompute | undefined {
  const all = config.vm ?? []
  return (
    all.find((compute) => compute.processes?.includes(group)) ??
    all.find((compute) => !compute.processes?.length)
  )
}
