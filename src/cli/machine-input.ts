import { readFileSync, statSync } from 'node:fs'
import { Fault } from '#core/fault.ts'
import { parseSizeMb } from '#core/units.ts'
import { isRootPersist, rootPersists } from '#spec/rootfs.ts'
import { shellSplit } from '#spec/shell-split.ts'
import type { MachineConfig, MachineFile } from '#spec/machine-config.ts'
import { keyValues } from './arguments.ts'
import type { Flag, FlagValues } from './command.ts'
import { envFlag, vmFlags } from './flags.ts'
import { guestOfFlags } from './guest.ts'
import { servicesOfPorts } from './ports.ts'

/** Flags of `machine run`, `create` and `update` that become its config. */
export const machineConfigFlags: readonly Flag[] = [
  envFlag,
  ...vmFlags,
  {
    name: 'port',
    short: 'p',
    kind: 'list',
    value: 'PORT',
    summary: 'port[:machinePort][/protocol[:handler…]], such as 80:8080/tcp:http; can be repeated',
  },
  { name: 'entrypoint', kind: 'text', value: 'WORDS', summary: "Replaces the image's ENTRYPOINT" },
  {
    name: 'metadata',
    short: 'm',
    kind: 'texts',
    value: 'NAME=VALUE',
    summary: 'Metadata; can be repeated',
  },
  {
    name: 'restart',
    kind: 'text',
    value: 'POLICY',
    summary: 'Restart policy: no, on-failure or always',
  },
  {
    name: 'rootfs-persist',
    kind: 'text',
    value: 'never|restart|always',
    summary: 'Keep what the machine writes to its root over restarts, or over updates too',
  },
  {
    name: 'rootfs-size',
    kind: 'text',
    value: 'SIZE',
    summary: 'How much it can write to its root: a number of GB, or with a unit: 2gb',
  },
  {
    name: 'schedule',
    kind: 'text',
    value: 'PERIOD',
    summary: 'Run hourly, daily, weekly or monthly',
  },
  { name: 'skip-dns-registration', kind: 'switch', summary: 'Keep it out of the internal DNS' },
  {
    name: 'autostart',
    kind: 'switch',
    summary: 'Start it when a request comes',
    fallback: 'true',
  },
  {
    name: 'autostop',
    kind: 'text',
    bare: 'stop',
    value: 'off|stop|suspend',
    summary: 'Stop it when nobody uses it',
    fallback: 'off',
  },
  {
    name: 'file-local',
    kind: 'texts',
    value: '/PATH=FILE',
    summary: 'Write a local file into the machine; can be repeated',
  },
  {
    name: 'file-literal',
    kind: 'texts',
    value: '/PATH=BASE64',
    summary: 'Write base64 content into the machine; can be repeated',
  },
  {
    name: 'file-secret',
    kind: 'texts',
    value: '/PATH=SECRET',
    summary: 'Write a base64 secret into the machine; can be repeated',
  },
]

/** Applies the flags to a config: what was not given stays as it is. The config given is not changed. */
export function applyMachineFlags(config: MachineConfig, flags: FlagValues): MachineConfig {
  const out: MachineConfig = { ...config }
  const env = keyValues(flags.texts('env'), '--env')
  if (Object.keys(env).length > 0) out.env = { ...config.env, ...env }
  const metadata = keyValues(flags.texts('metadata'), '--metadata')
  if (Object.keys(metadata).length > 0) out.metadata = { ...config.metadata, ...metadata }
  const guest = guestOfFlags(flags)
  if (guest) out.guest = { ...config.guest, ...guest }
  const entrypoint = flags.text('entrypoint')
  if (entrypoint !== undefined) {
    out.init = { ...config.init, entrypoint: words(entrypoint, '--entrypoint') }
  }
  const policy = restartPolicy(flags)
  if (policy) out.restart = { ...config.restart, policy }
  const rootfs = rootfsOf(flags)
  if (rootfs) out.rootfs = { ...config.rootfs, ...rootfs }
  const schedule = scheduleOf(flags)
  if (schedule) out.schedule = schedule
  if (flags.given('skip-dns-registration')) {
    out.dns = { ...config.dns, skip_registration: flags.on('skip-dns-registration') }
  }
  const files = filesOf(flags)
  if (files.length > 0) out.files = [...(config.files ?? []), ...files]
  return withServices(out, flags)
}

function withServices(config: MachineConfig, flags: FlagValues): MachineConfig {
  const autostop = autostopOf(flags)
  const base = {
    ...(flags.given('autostart') ? { autostart: flags.on('autostart') } : {}),
    ...(autostop ? { autostop } : {}),
  }
  const specs = flags.texts('port')
  if (specs.length > 0) return { ...config, services: servicesOfPorts(specs, base) }
  if (!config.services || Object.keys(base).length === 0) return config
  return { ...config, services: config.services.map((service) => ({ ...service, ...base })) }
}

function words(text: string, flag: string): string[] {
  const split = shellSplit(text)
  if (split) return split
  throw new Fault('bad_request', `${flag} "${text}" has a quote that is not closed`)
}

function restartPolicy(flags: FlagValues): 'no' | 'on-failure' | 'always' | undefined {
  const named = flags.text('restart')
  if (named === undefined) return undefined
  if (named === 'never') return 'no'
  // flyctl's own word for it.
  if (named === 'on-fail') return 'on-failure'
  if (named === 'no' || named === 'on-failure' || named === 'always') return named
  throw new Fault('bad_request', `--restart is no, on-failure or always, not "${named}"`)
}

function rootfsOf(flags: FlagValues): MachineConfig['rootfs'] {
  const persist = flags.text('rootfs-persist')
  const size = flags.text('rootfs-size')
  if (persist === undefined && size === undefined) return undefined
  if (persist !== undefined && !isRootPersist(persist)) {
    const known = rootPersists.join(', ')
    throw new Fault('bad_request', `--rootfs-persist is one of ${known}, not "${persist}"`)
  }
  return { ...(persist ? { persist } : {}), ...(size ? { size_gb: gigabytes(size) } : {}) }
}

function gigabytes(size: string): number {
  const gb = (parseSizeMb(size, 'gb') ?? NaN) / 1024
  if (Number.isInteger(gb) && gb > 0) return gb
  throw new Fault('bad_request', `--rootfs-size "${size}" is no size in whole GB; write 2 or 2gb`)
}

function scheduleOf(flags: FlagValues): 'hourly' | 'daily' | 'weekly' | 'monthly' | undefined {
  const named = flags.text('schedule')
  if (named === undefined) return undefined
  if (named === 'hourly' || named === 'daily' || named === 'weekly' || named === 'monthly') {
    return named
  }
  throw new Fault('bad_request', `--schedule is hourly, daily, weekly or monthly, not "${named}"`)
}

function autostopOf(flags: FlagValues): 'off' | 'stop' | 'suspend' | undefined {
  const named = flags.text('autostop')
  if (named === undefined) return undefined
  if (named === 'true') return 'stop'
  if (named === 'false') return 'off'
  if (named === 'off' || named === 'stop' || named === 'suspend') return named
  throw new Fault('bad_request', `--autostop is off, stop or suspend, not "${named}"`)
}

function filesOf(flags: FlagValues): MachineFile[] {
  const list = (flag: string, make: (value: string) => Partial<MachineFile>): MachineFile[] =>
    Object.entries(keyValues(flags.texts(flag), `--${flag}`)).map(([guest_path, value]) => ({
      guest_path,
      ...make(value),
    }))
  return [
    ...list('file-local', (path) => {
      if (!statSync(path, { throwIfNoEntry: false })?.isFile()) {
        throw new Fault('bad_request', `--file-local: ${path} is no file`)
      }
      return { raw_value: readFileSync(path).toString('base64') }
    }),
    ...list('file-literal', (raw_value) => ({ raw_value })),
    ...list('file-secret', (secret_name) => ({ secret_name })),
  ]
}
