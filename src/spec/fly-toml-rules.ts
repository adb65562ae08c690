import { messageOf } from '#core/fault.ts'
import { parseGoDuration } from '#core/units.ts'
import { shown } from './fly-toml-fields.ts'
import type { KeyPath } from './fly-toml-locate.ts'
import type { FlyConfig, FlyMount, FlyServicePort } from './fly-toml-schema.ts'
import { guestOfCompute } from './guest-of-compute.ts'
import { belongsTo, processGroups } from './process-groups.ts'
import { shellSplit } from './shell-split.ts'

/** A complaint about one key; the message reads after the key's name. */
export interface Complaint {
  path: KeyPath
  message: string
}

/** What one section cannot tell alone: rules between sections, and values that only together make sense. TOML-8. */
export function complaintsOf(config: FlyConfig): Complaint[] {
  return [
    ...envRules(config),
    ...commandRules(config),
    ...deployRules(config),
    ...serviceRules(config),
    ...checkRules(config),
    ...groupRules(config),
    ...mountRules(config),
    ...fileRules(config),
    ...computeRules(config),
    ...staticRules(config),
  ]
}

/** TOML-30. */
function envRules(config: FlyConfig): Complaint[] {
  return Object.keys(config.env ?? {})
    .filter((name) => name.startsWith('FLY_'))
    .map((name) => ({
      path: ['env', name],
      message:
        'is a name that the platform keeps for itself; choose one that does not start with FLY_',
    }))
}

/** TOML-60: commands are split like a shell does. */
function commandRules(config: FlyConfig): Complaint[] {
  const commands: [KeyPath, string | undefined][] = [
    [['console_command'], config.console_command],
    [['deploy', 'release_command'], config.deploy?.release_command],
    [['deploy', 'seed_command'], config.deploy?.seed_command],
    ...Object.entries(config.processes ?? {}).map(([name, command]): [KeyPath, string] => [
      ['processes', name],
      command,
    ]),
  ]
  return commands
    .filter(([, command]) => command !== undefined && shellSplit(command) === undefined)
    .map(([path, command]) => ({
      path,
      message: `has a quote that is never closed: ${shown(command)}`,
    }))
}

function deployRules(config: FlyConfig): Complaint[] {
  const strategy = config.deploy?.strategy
  const path = ['deploy', 'strategy']
  if ((strategy === 'canary' || strategy === 'bluegreen') && config.mounts?.length) {
    return [{ path, message: `cannot be "${strategy}" in an app with [[mounts]]; use "rolling"` }]
  }
  return []
}

/** TOML-51, TOML-52, TOML-53. */
function serviceRules(config: FlyConfig): Complaint[] {
  const found: Complaint[] = []
  const services = [
    ...(config.http_service ? [{ path: ['http_service'], of: config.http_service }] : []),
    ...(config.services ?? []).map((of, index) => ({ path: ['services', index], of })),
  ]
  for (const { path, of } of services) {
    if (config.processes && !of.processes?.length) {
      found.push({
        path: [...path, 'processes'],
        message: `is missing; the app has [processes], so name those that this service reaches: ${groupList(config)}`,
      })
    }
    for (const [index, port] of ('ports' in of ? (of.ports ?? []) : []).entries()) {
      const message = portComplaint(port)
      if (message) found.push({ path: [...path, 'ports', index, message.key], ...message })
    }
  }
  return found
}

function portComplaint(port: FlyServicePort): { key: string; message: string } | undefined {
  const range = port.start_port !== undefined || port.end_port !== undefined
  if (port.port === undefined && !range) {
    return { key: 'port', message: 'is missing; give port, or start_port and end_port' }
  }
  if (port.port === undefined && (port.start_port === undefined || port.end_port === undefined)) {
    const key = port.start_port === undefined ? 'start_port' : 'end_port'
    return { key, message: 'is missing; a range of ports has start_port and end_port' }
  }
  if (range && (port.start_port ?? 0) > (port.end_port ?? 65_535)) {
    return { key: 'end_port', message: `must not be below start_port, ${port.start_port}` }
  }
  if (port.force_https && !port.handlers?.includes('http')) {
    return { key: 'force_https', message: 'needs handlers = ["http"] on the same port' }
  }
  return undefined
}

/** TOML-71. */
function checkRules(config: FlyConfig): Complaint[] {
  return Object.entries(config.checks ?? {}).flatMap(([name, check]): Complaint[] => {
    if (check.port !== undefined) return []
    const groups = processGroups(config).filter((group) => belongsTo(config, group, check))
    const service = config.http_service
    if (service && groups.every((group) => belongsTo(config, group, service))) return []
    return [
      {
        path: ['checks', name, 'port'],
        message: 'is missing, and its process group has no [http_service] to take it from',
      },
    ]
  })
}

/** TOML-52: a section may only name groups that exist. */
function groupRules(config: FlyConfig): Complaint[] {
  const known = processGroups(config)
  const sections: [KeyPath, { processes?: string[] | undefined }][] = [
    ...(config.http_service ? [[['http_service'], config.http_service] as const] : []),
    ...Object.entries(config.checks ?? {}).map(([name, of]) => [['checks', name], of] as const),
    ...(['services', 'mounts', 'files', 'restart', 'vm', 'metrics'] as const).flatMap((key) =>
      (config[key] ?? []).map((of, index) => [[key, index], of] as const),
    ),
  ].map(([path, of]) => [path, of])
  return sections.flatMap(([path, of]) =>
    (of.processes ?? [])
      .filter((group) => !known.includes(group))
      .map((group) => ({
        path: [...path, 'processes'],
        message: `names ${shown(group)}, which is no process group of this app; its groups: ${groupList(config)}`,
      })),
  )
}

/** §1.9. */
function mountRules(config: FlyConfig): Complaint[] {
  const mounts = config.mounts ?? []
  const found = mounts.flatMap((mount, index) =>
    mountComplaints(mount).map(({ key, message }) => ({ path: ['mounts', index, key], message })),
  )
  for (const group of processGroups(config)) {
    const second = mounts.findIndex(
      (mount, index) =>
        belongsTo(config, group, mount) &&
        mounts.slice(0, index).some((before) => belongsTo(config, group, before)),
    )
    if (second >= 0) {
      found.push({
        path: ['mounts', second, 'source'],
        message: `is a second volume for process group "${group}"; a machine mounts at most one`,
      })
    }
  }
  return found
}

function mountComplaints(mount: FlyMount): { key: string; message: string }[] {
  const found: { key: string; message: string }[] = []
  const { auto_extend_size_threshold: threshold, auto_extend_size_increment: increment } = mount
  const limit = mount.auto_extend_size_limit
  const outside = (value: number | undefined, max: number) =>
    value !== undefined && (value < 1 || value > max)
  if (!/^[a-z0-9_]{1,30}$/.test(mount.source)) {
    found.push({
      key: 'source',
      message: `must be 1 to 30 lowercase letters, digits and underscores, not ${shown(mount.source)}`,
    })
  }
  if (!mount.destination.startsWith('/') || /^\/+$/.test(mount.destination)) {
    found.push({
      key: 'destination',
      message: `must be an absolute path below /, such as "/data", not ${shown(mount.destination)}`,
    })
  }
  if (outside(mount.initial_size, 500)) {
    found.push({ key: 'initial_size', message: 'must be from 1gb to 500gb' })
  }
  if ((threshold === undefined) !== (increment === undefined)) {
    const key =
      threshold === undefined ? 'auto_extend_size_threshold' : 'auto_extend_size_increment'
    found.push({ key, message: 'is missing; threshold and increment belong together' })
  }
  if (outside(increment, 100)) {
    found.push({ key: 'auto_extend_size_increment', message: 'must be from 1gb to 100gb' })
  }
  if (outside(limit, 500)) {
    found.push({ key: 'auto_extend_size_limit', message: 'must be from 1gb to 500gb' })
  }
  return found
}

/** TOML-35. */
function fileRules(config: FlyConfig): Complaint[] {
  return (config.files ?? []).flatMap((file, index): Complaint[] => {
    if (!file.guest_path.startsWith('/')) {
      return [
        {
          path: ['files', index, 'guest_path'],
          message: `must be an absolute path, not ${shown(file.guest_path)}`,
        },
      ]
    }
    const sources = [file.raw_value, file.local_path ?? file.raw_base64, file.secret_name]
    const given = sources.filter((source) => source !== undefined).length
    if (given === 1) return []
    return [
      {
        path: ['files', index],
        message: `must have exactly one of raw_value, local_path and secret_name, and has ${given === 0 ? 'none' : given}`,
      },
    ]
  })
}

/** MCH-60. */
function computeRules(config: FlyConfig): Complaint[] {
  const release = config.deploy?.release_command_vm
  const all = [
    ...(config.vm ?? []).map((compute, index) => ({ path: ['vm', index] as KeyPath, compute })),
    ...(release ? [{ path: ['deploy', 'release_command_vm'] as KeyPath, compute: release }] : []),
  ]
  return all.flatMap(({ path, compute }) => {
    try {
      guestOfCompute(compute)
      return []
    } catch (error) {
      const key = compute.size !== undefined ? 'size' : 'memory'
      return [
        { path: [...path, key], message: `asks for what no machine has: ${messageOf(error)}` },
      ]
    }
  })
}

/** TOML-73. */
function staticRules(config: FlyConfig): Complaint[] {
  const statics = config.statics ?? []
  if (statics.length > 10)
    return [{ path: ['statics', 10], message: 'is one too many; 10 is the most' }]
  return statics.flatMap((one, index) =>
    statics.slice(0, index).some((before) => overlap(before.url_prefix, one.url_prefix))
      ? [
          {
            path: ['statics', index, 'url_prefix'],
            message: 'overlaps the prefix of another [[statics]]',
          },
        ]
      : [],
  )
}

function overlap(a: string, b: string): boolean {
  const slashed = (prefix: string) => (prefix.endsWith('/') ? prefix : `${prefix}/`)
  return slashed(a).startsWith(slashed(b)) || slashed(b).startsWith(slashed(a))
}

const groupList = (config: FlyConfig): string => processGroups(config).join(', ')

/** CHK-2: the bounds that a service check is held to, as a note for people; undefined when it needs none. */
export function clampNote(
  time: string | undefined,
  what: 'interval' | 'timeout' | 'grace_period',
): string | undefined {
  const ms = time === undefined ? undefined : parseGoDuration(time)
  if (ms === undefined || (what === 'grace_period' && ms === 0)) return undefined
  if (ms < 1000) return `is below 1s and counts as 1s`
  if (ms > 60_000) return `is above 1m and counts as 1m`
  return undefined
}
