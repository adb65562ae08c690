import {
  chmodSync,
  closeSync,
  constants,
  fstatSync,
  lstatSync,
  openSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { Fault } from '#core/fault.ts'
import { resolveInTree, type MachineTree } from './tree.ts'

const readBytesMax = 4 * 1024 * 1024

/** The text of a regular file of the machine, or undefined when there is none. Bounded: an image may hold anything. */
export function readInTree(tree: MachineTree, path: string): string | undefined {
  const resolved = resolveInTree(tree, path)
  if (!resolved) return undefined
  const stat = lstatSync(resolved.outside, { throwIfNoEntry: false })
  if (!stat?.isFile() || stat.size > readBytesMax) return undefined
  return readFileSync(resolved.outside, 'utf8')
}

/** Writes a file into a machine that is not running, through the links of its image but never out of it. */
export function writeInTree(
  tree: MachineTree,
  file: { path: string; content: string | Buffer; mode: number },
): void {
  const resolved = resolveInTree(tree, file.path, { make: true })
  if (!resolved || resolved.inside === '/') {
    throw new Fault('invalid', `cannot write ${file.path}: a file of the image is in its way`)
  }
  const stat = lstatSync(resolved.outside, { throwIfNoEntry: false })
  if (stat?.isDirectory()) {
    throw new Fault('invalid', `cannot write ${file.path}: it is a folder in the image`)
  }
  // A device or a pipe of the image must not be written through.
  if (stat && !stat.isFile()) rmSync(resolved.outside)
  const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_TRUNC | constants.O_NOFOLLOW
  const fd = openSync(resolved.outside, flags, file.mode)
  try {
    writeFileSync(fd, file.content)
  } finally {
    closeSync(fd)
  }
  chmodSync(resolved.outside, file.mode & 0o7777)
}

function isExecutableFile(path: string): boolean {
  try {
    const fd = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK)
    try {
      const stat = fstatSync(fd)
      return stat.isFile() && (stat.mode & 0o111) !== 0
    } finally {
      closeSync(fd)
    }
  } catch {
    return false
  }
}

/** Whether the machine would find a program: by its path (from the working directory), or on PATH. */
export function hasProgram(
  tree: MachineTree,
  program: string,
  where: { path: string; workdir: string },
): boolean {
  const candidates = program.includes('/')
    ? [program.startsWith('/') ? program : `${where.workdir}/${program}`]
    : where.path.split(':').map((folder) => `${folder || where.workdir}/${program}`)
  return candidates.some((candidate) => {
    const resolved = resolveInTree(tree, candidate)
    return resolved !== undefined && isExecutableFile(resolved.outside)
  })
}
