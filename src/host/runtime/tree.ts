import { lstatSync, mkdirSync, readlinkSync } from 'node:fs'
import { join } from 'node:path'
import { Fault } from '#core/fault.ts'

/**
 * A machine's file tree as the host sees it: the merged root, and the folders mounted into it. The image and the volumes
 * are strangers: a symbolic link in them means something inside the machine, never a place on the host.
 */
export interface MachineTree {
  root: string
  /** `path` is absolute, without links; `source` is the host's folder. */
  mounts: readonly { source: string; path: string }[]
}

const linksMax = 40

const split = (path: string) => path.split('/').filter((part) => part !== '' && part !== '.')

/** Where a link-free path of the machine lies on the host. */
function locate(tree: MachineTree, parts: readonly string[]): string {
  const path = `/${parts.join('/')}`
  let best: { source: string; path: string } | undefined
  for (const mount of tree.mounts) {
    const covers = path === mount.path || path.startsWith(`${mount.path}/`)
    if (covers && mount.path.length > (best?.path.length ?? 0)) best = mount
  }
  return best ? join(best.source, path.slice(best.path.length)) : join(tree.root, path)
}

export interface ResolvedPath {
  /** Absolute path in the machine, free of links. */
  inside: string
  /** The same on the host. */
  outside: string
}

/**
 * Follows a path as the machine's own kernel would, links included, without ever leaving the machine. The last part need
 * not exist. Undefined when a folder on the way is missing or is no folder; `make` creates missing folders instead.
 * A Fault (`invalid`) when links go in circles.
 */
export function resolveInTree(
  tree: MachineTree,
  path: string,
  options: { make?: boolean } = {},
): ResolvedPath | undefined {
  let pending = split(path)
  const done: string[] = []
  let links = 0
  while (pending.length > 0) {
    const part = pending.shift() as string
    if (part === '..') {
      done.pop()
      continue
    }
    const outside = locate(tree, [...done, part])
    const stat = lstatSync(outside, { throwIfNoEntry: false })
    if (stat?.isSymbolicLink()) {
      if (++links > linksMax) {
        throw new Fault('invalid', `the path ${path} leads through too many links in the image`)
      }
      const target = readlinkSync(outside)
      if (target.startsWith('/')) done.length = 0
      pending = [...split(target), ...pending]
      continue
    }
    if (pending.length > 0) {
      if (!stat && options.make) mkdirSync(outside, 0o755)
      else if (!stat?.isDirectory()) return undefined
    }
    done.push(part)
  }
  return { inside: `/${done.join('/')}`, outside: locate(tree, done) }
}

/** The folder at a path of the machine, made with its parents when missing. */
export function makeFolderInTree(tree: MachineTree, path: string): ResolvedPath {
  const resolved = resolveInTree(tree, path, { make: true })
  if (!resolved) {
    throw new Fault(
      'invalid',
      `the folder ${path} cannot be made: a file of the image is in its way`,
    )
  }
  const stat = lstatSync(resolved.outside, { throwIfNoEntry: false })
  if (!stat) mkdirSync(resolved.outside, 0o755)
  else if (!stat.isDirectory()) {
    throw new Fault('invalid', `${path} is a file in the image, and must be a folder`)
  }
  return resolved
}
