import { existsSync, mkdirSync, realpathSync, writeFileSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import type { CgroupTree } from '#sys/cgroup.ts'
import type { MachineLimits } from '../driver.ts'
import type { Accel } from './qemu-args.ts'

const periodUs = 100_000
/** For QEMU's own threads, beside those that are the machine's processors. */
const ownQuotaUs = 25_000
const tasksMax = 256
const mebibyte = 1024 * 1024
/** What QEMU needs beside the guest's memory: its heap and the buffers of disks; with TCG the translated code too. */
const overheadMb: Record<Accel, number> = { kvm: 192, tcg: 384 }
const cpuShares = { shared: 64, performance: 1024 } as const
const controllersV1 = ['memory', 'cpu', 'cpuacct', 'pids', 'freezer', 'systemd']

export interface VmLimits extends MachineLimits {
  accel: Accel
}

/** How much of a busy host's processors the machine gets beside others. */
export function setWeight(
  tree: CgroupTree,
  path: string,
  limits: Pick<MachineLimits, 'cpus' | 'cpuKind'>,
): void {
  const shares = Math.max(2, Math.round(cpuShares[limits.cpuKind] * limits.cpus))
  if (tree.version === 2) {
    // As crun converts shares.
    const weight = Math.round(1 + ((shares - 2) * 9999) / 262142)
    writeFileSync(join(tree.mount, path, 'cpu.weight'), String(Math.min(weight, 10_000)))
  } else writeFileSync(join(tree.mount, 'cpu', path, 'cpu.shares'), String(shares))
}

/**
 * Makes the group of one VMM with its limits. Harmless when it is there. Somebody waits for a boot: until `setWeight` it
 * has the weight of a performance machine.
 */
export function makeCgroup(tree: CgroupTree, path: string, limits: VmLimits): void {
  const memory = String((limits.memoryMb + overheadMb[limits.accel]) * mebibyte)
  const quota = Math.round(limits.cpus * periodUs) + ownQuotaUs
  if (tree.version === 2) {
    const at = join(tree.mount, path)
    for (const parent of [tree.mount, dirname(at)]) {
      mkdirSync(parent, { recursive: true })
      writeFileSync(join(parent, 'cgroup.subtree_control'), '+memory +cpu +pids')
    }
    mkdirSync(at, { recursive: true })
    writeFileSync(join(at, 'memory.max'), memory)
    if (existsSync(join(at, 'memory.swap.max'))) writeFileSync(join(at, 'memory.swap.max'), '0')
    writeFileSync(join(at, 'cpu.max'), `${quota} ${periodUs}`)
    writeFileSync(join(at, 'pids.max'), String(tasksMax))
    setWeight(tree, path, { cpus: limits.cpus, cpuKind: 'performance' })
    return
  }
  for (const at of foldersV1(tree, path)) mkdirSync(at, { recursive: true })
  const set = (controller: string, file: string, value: string) =>
    writeFileSync(join(tree.mount, controller, path, file), value)
  set('memory', 'memory.limit_in_bytes', memory)
  set('cpu', 'cpu.cfs_period_us', String(periodUs))
  set('cpu', 'cpu.cfs_quota_us', String(quota))
  set('pids', 'pids.max', String(tasksMax))
  setWeight(tree, path, { cpus: limits.cpus, cpuKind: 'performance' })
}

/** Two controllers may be one tree under two names. */
function foldersV1(tree: CgroupTree, path: string): string[] {
  const mounts = controllersV1
    .map((name) => join(tree.mount, name))
    .filter((at) => existsSync(at))
    .map((at) => realpathSync(at))
  return [...new Set(mounts)].map((at) => join(at, path))
}

/** Moves a process into the group; the kernel waits a few milliseconds for each tree: time for other work. */
export async function joinCgroup(tree: CgroupTree, path: string, pid: number): Promise<void> {
  const folders = tree.version === 2 ? [join(tree.mount, path)] : foldersV1(tree, path)
  await Promise.all(folders.map((at) => writeFile(join(at, 'cgroup.procs'), String(pid))))
}
