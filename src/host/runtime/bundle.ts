import { readFileSync } from 'node:fs'
import { resolve } from 'node:path'
import type { StartSpec } from './driver.ts'
import { seccompProfile } from './seccomp.ts'

/** PID 1 of every machine: guest/ in the root of the tree, which scripts/setup builds. */
export const initPath = '/.fly/init'
export const initSource = resolve(import.meta.dirname, '../../../build/guest/init')

/** A fork bomb stops here. */
const processesMax = 8192
/** Wanted; a host that was itself given less can give no more. */
const openFilesMax = { soft: 65_536, hard: 1_048_576 }
/** MCH-62's period. */
const cpuPeriodUs = 80_000
/** A performance CPU weighs 16 shared ones: 100 % against 6.25 %. MCH-62. */
const cpuShares = { shared: 128, performance: 2048 } as const

/** Docker's default set. */
const capabilityNames = [
  'CAP_AUDIT_WRITE',
  'CAP_CHOWN',
  'CAP_DAC_OVERRIDE',
  'CAP_FOWNER',
  'CAP_FSETID',
  'CAP_KILL',
  'CAP_MKNOD',
  'CAP_NET_BIND_SERVICE',
  'CAP_NET_RAW',
  'CAP_SETFCAP',
  'CAP_SETGID',
  'CAP_SETPCAP',
  'CAP_SETUID',
  'CAP_SYS_CHROOT',
]

function openFilesLimit(): { soft: number; hard: number } {
  const line = /^Max open files\s+\S+\s+(\d+)/m.exec(readFileSync('/proc/self/limits', 'utf8'))
  const hard = Math.min(openFilesMax.hard, Number(line?.[1] ?? openFilesMax.hard))
  return { soft: Math.min(openFilesMax.soft, hard), hard }
}

const openFiles = openFilesLimit()

/** PID 1 is root with the set; a program of another user has none and can never get more than the set. */
function ociProcess(argv: string[]): object {
  return {
    terminal: false,
    user: { uid: 0, gid: 0 },
    args: argv,
    env: [],
    cwd: '/',
    capabilities: {
      bounding: capabilityNames,
      effective: capabilityNames,
      permitted: capabilityNames,
    },
    rlimits: [{ type: 'RLIMIT_NOFILE', ...openFiles }],
    noNewPrivileges: true,
  }
}

function ociResources(limits: StartSpec['limits'], swapIsCounted: boolean): object {
  const memoryBytes = limits.memoryMb * 1024 * 1024
  return {
    devices: [{ allow: false, access: 'rwm' }],
    // A swap limit equal to the memory limit means no swap. MCH-64.
    memory: { limit: memoryBytes, ...(swapIsCounted ? { swap: memoryBytes } : {}) },
    cpu: {
      shares: cpuShares[limits.cpuKind] * limits.cpus,
      quota: cpuPeriodUs * limits.cpus,
      period: cpuPeriodUs,
    },
    pids: { limit: processesMax },
  }
}

function ociMounts(spec: StartSpec, volumes: { source: string; path: string }[]): object[] {
  const fixed = ['nosuid', 'noexec', 'nodev']
  const sharedMemoryMb = Math.max(64, Math.floor(spec.limits.memoryMb / 2))
  const mount = (destination: string, type: string, options: string[]) => ({
    destination,
    type,
    source: type,
    options,
  })
  return [
    mount('/proc', 'proc', fixed),
    mount('/dev', 'tmpfs', ['nosuid', 'strictatime', 'mode=755', 'size=65536k']),
    mount('/dev/pts', 'devpts', [
      'nosuid',
      'noexec',
      'newinstance',
      'ptmxmode=0666',
      'mode=0620',
      'gid=5',
    ]),
    mount('/dev/shm', 'tmpfs', [...fixed, 'mode=1777', `size=${sharedMemoryMb}m`]),
    mount('/dev/mqueue', 'mqueue', fixed),
    mount('/sys', 'sysfs', [...fixed, 'ro']),
    mount('/sys/fs/cgroup', 'cgroup', [...fixed, 'relatime', 'ro']),
    {
      destination: initPath,
      type: 'bind',
      source: initSource,
      options: ['bind', 'ro', 'nosuid', 'nodev'],
    },
    ...volumes.map(({ source, path }) => ({
      destination: path,
      type: 'bind',
      source,
      options: ['bind', 'rw', 'nosuid', 'nodev'],
    })),
  ]
}

const maskedPaths = [
  '/proc/acpi',
  '/proc/asound',
  '/proc/kcore',
  '/proc/keys',
  '/proc/latency_stats',
  '/proc/timer_list',
  '/proc/timer_stats',
  '/proc/sched_debug',
  '/proc/scsi',
  '/sys/firmware',
  '/sys/devices/virtual/powercap',
]
const readonlyPaths = ['/proc/bus', '/proc/fs', '/proc/irq', '/proc/sys', '/proc/sysrq-trigger']

/** Every user, as on a machine of one's own, may listen on port 80 and send pings. */
const networkSettings = {
  'net.ipv4.ip_unprivileged_port_start': '0',
  'net.ipv4.ping_group_range': '0 2147483647',
}

export interface BundleRequest {
  spec: StartSpec
  rootPath: string
  cgroupPath: string
  swapIsCounted: boolean
  /** PID 1. */
  argv: string[]
  /** Link-free. */
  volumes: { source: string; path: string }[]
}

/** config.json of the OCI bundle of one machine. */
export function ociConfig(request: BundleRequest): object {
  const { spec } = request
  return {
    ociVersion: '1.0.2',
    process: ociProcess(request.argv),
    root: { path: request.rootPath, readonly: false },
    hostname: spec.hostname,
    mounts: ociMounts(spec, request.volumes),
    linux: {
      cgroupsPath: request.cgroupPath,
      resources: ociResources(spec.limits, request.swapIsCounted),
      namespaces: [
        { type: 'mount' },
        { type: 'pid' },
        { type: 'ipc' },
        { type: 'uts' },
        { type: 'cgroup' },
        // Never the host's own: a probe without a path gets a new one.
        { type: 'network', ...(spec.netnsPath ? { path: spec.netnsPath } : {}) },
      ],
      sysctl: networkSettings,
      seccomp: seccompProfile(),
      maskedPaths,
      readonlyPaths,
    },
  }
}
