import type { ResolvedGuest } from '#spec/guest-size.ts'
import type { Colors } from './io.ts'

/** One line of the plan: what it is and why. */
export interface Choice<T = string> {
  value: T
  why: string
}

export interface LaunchPlan {
  kind: 'Dockerfile' | 'image' | 'fly.toml'
  org: Choice<{ slug: string; name: string }>
  name: Choice
  region: Choice
  regionName: string
  internalPort: Choice<number>
  guest: Choice
}

/** The memory that most apps need. DEP-41. */
export const launchGuest: ResolvedGuest = { cpus: 1, cpu_kind: 'shared', memory_mb: 1024 }

/** An app name made from a folder's name: TOML-2. Empty when nothing of it can be used. */
export function nameFromFolder(folder: string): string {
  return folder
    .normalize('NFKD')
    .replace(/[\u0300-\u036f]/g, '')
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, '-')
    .replace(/^-+/, '')
    .slice(0, 63)
    .replace(/-+$/, '')
}

/** A name nobody has yet, near to the one wanted. */
export function variantOf(name: string, suffix: string): string {
  return `${name.slice(0, 62 - suffix.length).replace(/-+$/, '')}-${suffix}`.replace(/^-+/, '')
}

/** The plan as flyctl shows it. */
export function planLines(plan: LaunchPlan, colors: Colors): string[] {
  const rows: [string, string, string][] = [
    ['Organization', plan.org.value.name, plan.org.why],
    ['Name', plan.name.value, plan.name.why],
    ['Region', plan.regionName, plan.region.why],
    ['App Machines', plan.guest.value, plan.guest.why],
    ['Internal Port', String(plan.internalPort.value), plan.internalPort.why],
    ['Postgres', '<none>', 'not requested'],
    ['Redis', '<none>', 'not requested'],
    ['Tigris', '<none>', 'not requested'],
  ]
  const label = Math.max(...rows.map(([name]) => name.length)) + 1
  const width = Math.max(...rows.map(([, value]) => value.length))
  return rows.map(
    ([name, value, why]) =>
      `${`${name}:`.padEnd(label)} ${colors.magenta(value.padEnd(width))} (${colors.yellow(why)})`,
  )
}

/** DEP-41: the definition of a new app with flyctl's defaults. */
export function newDefinition(options: {
  app: string
  region: string
  internalPort: number
  guest: ResolvedGuest
  image?: string | undefined
  /** Relative to the configuration file; left out for the usual name. */
  dockerfile?: string | undefined
  env: Record<string, string>
}): Record<string, unknown> {
  const { guest, env } = options
  const memory = guest.memory_mb
  return {
    app: options.app,
    primary_region: options.region,
    build: {
      ...(options.image ? { image: options.image } : {}),
      ...(options.dockerfile ? { dockerfile: options.dockerfile } : {}),
    },
    ...(Object.keys(env).length > 0 ? { env } : {}),
    http_service: {
      internal_port: options.internalPort,
      force_https: true,
      auto_stop_machines: 'stop',
      auto_start_machines: true,
      min_machines_running: 0,
      processes: ['app'],
    },
    vm: [
      {
        memory: memory % 1024 === 0 ? `${memory / 1024}gb` : `${memory}mb`,
        cpu_kind: guest.cpu_kind,
        cpus: guest.cpus,
      },
    ],
  }
}
