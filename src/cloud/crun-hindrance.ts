import { existsSync, mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { readTextFile } from '#sys/files.ts'
import { run } from '#sys/process.ts'
import type { Progress } from './progress.ts'

/** Where cgroups are mounted; tests name a folder of their own. */
const root = '/sys/fs/cgroup'

/**
 * Whether crun refuses this machine for nothing but huge pages: version 1 does all the work, and the version 2 tree
 * beside it holds `hugetlb`, a controller that machines do not use.
 */
export function onlyHugetlbHinders(cgroups: string = root): boolean {
  const controllers = readTextFile(join(cgroups, 'unified/cgroup.controllers'))?.trim()
  return controllers === 'hugetlb' && existsSync(join(cgroups, 'memory/cgroup.procs'))
}

/**
 * Moves that controller to version 1, so that crun, which starts a machine in half the time of runc, can be used. It
 * disturbs nobody, because a controller that is in use cannot be moved, and is gone at the next boot. Best effort.
 */
export async function freeCrun(progress: Pick<Progress, 'note'>): Promise<void> {
  if (!onlyHugetlbHinders()) return
  const point = join(root, 'hugetlb')
  try {
    mkdirSync(point, { recursive: true })
  } catch {
    return // A read-only tree of a container.
  }
  const mounted = await run('mount', ['-t', 'cgroup', '-o', 'hugetlb', 'cgroup', point])
  if (mounted.code !== 0) return
  if (onlyHugetlbHinders()) await run('umount', [point])
  else progress.note(`  mounted cgroup hugetlb at ${point}, so that machines start by crun`)
}
