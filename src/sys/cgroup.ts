import { existsSync, readFileSync, readdirSync, rmdirSync, writeFileSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { systemClock } from '#core/clock.ts'
import { readTextFile } from './files.ts'

/**
 * The control groups of one host's machines, read and written directly. Version 2 is one tree; version 1 is a tree for
 * each controller, with a machine's group at the same path in each.
 */
export interface CgroupTree {
  version: 1 | 2
  mount: string
  /** Version 1: the folders in it that are trees, such as `memory` and, beside them, `unified`. A folder whose mount is gone is none of them. */
  controllers: string[]
}

/** What the machine's kernel offers. The arguments are for tests. */
export function findCgroups(
  mount = '/sys/fs/cgroup',
  mountInfo = readFileSync('/proc/self/mountinfo', 'utf8'),
): CgroupTree {
  const version = existsSync(join(mount, 'cgroup.controllers')) ? 2 : 1
  return { version, mount, controllers: version === 2 ? [] : controllersIn(mount, mountInfo) }
}

/** proc_pid_mountinfo(5): the fifth field is the place, the type follows the lone dash. */
function controllersIn(mount: string, mountInfo: string): string[] {
  const trees = mountInfo.split('\n').flatMap((line) => {
    const [before = '', after = ''] = line.split(' - ')
    const place = before.split(' ')[4] ?? ''
    return /^cgroup2? /.test(after) && dirname(place) === mount ? [basename(place)] : []
  })
  return [...new Set(trees)]
}

/** Whether a swap limit can be set; a kernel booted without swap accounting refuses one under version 1. */
export function countsSwap(tree: CgroupTree): boolean {
  return tree.version === 2 || existsSync(join(tree.mount, 'memory/memory.memsw.limit_in_bytes'))
}

function folder(tree: CgroupTree, controller: string, path: string): string {
  return tree.version === 2 ? join(tree.mount, path) : join(tree.mount, controller, path)
}

/** Every folder of a group that exists. */
function folders(tree: CgroupTree, path: string): string[] {
  if (tree.version === 2) return [folder(tree, '', path)].filter((name) => existsSync(name))
  return tree.controllers
    .map((name) => join(tree.mount, name, path))
    .filter((name) => existsSync(name))
}

/**
 * The processes of a group and of the groups that the machine made inside it. The kernel writes 0 for one that is in
 * another pid namespace than ours; to kill, 0 means ourselves, so it is left out.
 */
export function processesOf(tree: CgroupTree, path: string): number[] {
  const walk = (at: string): number[] => {
    const pids = (readTextFile(join(at, 'cgroup.procs')) ?? '').split('\n').map(Number)
    return [...pids.filter((pid) => pid > 0), ...children(at).flatMap((child) => walk(child))]
  }
  try {
    return walk(folder(tree, 'pids', path))
  } catch {
    return [] // Removed while it was read: nothing runs in it.
  }
}

/** The machines that have a group in a host's: a probe's name has dashes, a machine's has none. */
export const machinesIn = (tree: CgroupTree, path: string): string[] =>
  children(folder(tree, 'pids', path))
    .map((at) => basename(at))
    .filter((name) => /^[a-z0-9]+$/.test(name))

function children(at: string): string[] {
  if (!existsSync(at)) return []
  const entries = readdirSync(at, { withFileTypes: true })
  return entries.filter((entry) => entry.isDirectory()).map((entry) => join(at, entry.name))
}

function numberIn(file: string, key?: string): number | undefined {
  const text = readTextFile(file)
  if (text === undefined) return undefined
  if (key === undefined) return Number(text.trim())
  const line = text.split('\n').find((row) => row.startsWith(`${key} `))
  return line === undefined ? undefined : Number(line.slice(key.length + 1))
}

/** How many processes the kernel killed for want of memory. */
export function oomKills(tree: CgroupTree, path: string): number {
  const file = tree.version === 2 ? 'memory.events' : 'memory.oom_control'
  return numberIn(join(folder(tree, 'memory', path), file), 'oom_kill') ?? 0
}

export interface CgroupUse {
  cpuUsec: number
  memoryBytes: number
}

export function useOf(tree: CgroupTree, path: string): CgroupUse | undefined {
  const memory = folder(tree, 'memory', path)
  if (tree.version === 2) {
    const cpuUsec = numberIn(join(memory, 'cpu.stat'), 'usage_usec')
    const memoryBytes = numberIn(join(memory, 'memory.current'))
    return cpuUsec === undefined || memoryBytes === undefined ? undefined : { cpuUsec, memoryBytes }
  }
  const cpuNs = numberIn(join(folder(tree, 'cpuacct', path), 'cpuacct.usage'))
  const memoryBytes = numberIn(join(memory, 'memory.usage_in_bytes'))
  if (cpuNs === undefined || memoryBytes === undefined) return undefined
  return { cpuUsec: Math.floor(cpuNs / 1000), memoryBytes }
}

function freezerFile(tree: CgroupTree, path: string): string {
  const file = tree.version === 2 ? 'cgroup.freeze' : 'freezer.state'
  return join(folder(tree, 'freezer', path), file)
}

export function isFrozen(tree: CgroupTree, path: string): boolean {
  const text = readTextFile(freezerFile(tree, path))?.trim()
  return tree.version === 2 ? text === '1' : text === 'FROZEN' || text === 'FREEZING'
}

/** Freezes or thaws a group; resolves with whether the kernel says that it is so. */
export async function setFrozen(
  tree: CgroupTree,
  path: string,
  frozen: boolean,
  timeoutMs = 5_000,
): Promise<boolean> {
  const file = freezerFile(tree, path)
  if (!existsSync(file)) return !frozen
  const [on, off] = tree.version === 2 ? ['1', '0'] : ['FROZEN', 'THAWED']
  const settled = () => {
    if (tree.version === 1) return readFileSync(file, 'utf8').trim() === (frozen ? on : off)
    return numberIn(join(file, '../cgroup.events'), 'frozen') === (frozen ? 1 : 0)
  }
  const deadline = systemClock.now() + timeoutMs
  for (let attempt = 1; ; attempt++) {
    writeFileSync(file, frozen ? on : off)
    if (settled()) return true
    if (systemClock.now() > deadline) return false
    // Version 1 can stay half frozen when processes fork meanwhile: let them go on a moment, then try anew.
    if (frozen && tree.version === 1 && attempt % 25 === 0) writeFileSync(file, off)
    await systemClock.sleep(2)
  }
}

/** Kills all in a group, thawing it first, and removes it. True when it is gone. */
export async function removeCgroup(
  tree: CgroupTree,
  path: string,
  timeoutMs = 10_000,
): Promise<boolean> {
  const deadline = systemClock.now() + timeoutMs
  for (let waitMs = 1; ; waitMs = Math.min(waitMs * 2, 100)) {
    const left = folders(tree, path)
    if (left.length === 0) return true
    if (isFrozen(tree, path)) await setFrozen(tree, path, false)
    killAll(tree, path)
    let removed = true
    for (const at of left) removed = removeFolders(at) && removed
    if (removed) return true
    if (systemClock.now() > deadline) return false
    await systemClock.sleep(waitMs)
  }
}

/** Removes a group and those in it as far as they are empty; kills nothing. */
export function removeEmptyCgroups(tree: CgroupTree, path: string): void {
  for (const at of folders(tree, path)) removeFolders(at)
}

/** Removes the group of a host that no machine has a group in; kills nothing. */
export function removeUnusedParent(tree: CgroupTree, path: string): void {
  if (machinesIn(tree, path).length === 0) removeEmptyCgroups(tree, path)
}

/** A frozen process dies once it is thawed. */
export function killAll(tree: CgroupTree, path: string): void {
  for (const pid of processesOf(tree, path)) killQuietly(pid)
}

function killQuietly(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL')
  } catch {
    // It ended by itself.
  }
}

function removeFolders(at: string): boolean {
  for (const child of children(at)) removeFolders(child)
  try {
    rmdirSync(at)
    return true
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'ENOENT'
  }
}
