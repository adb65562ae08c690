import { lstat, readdir } from 'node:fs/promises'
import { basename, isAbsolute, join, relative, resolve, sep } from 'node:path'
import type { Readable } from 'node:stream'
import { packTar, type TarSource } from 'modern-tar/fs'
import { Fault } from '#core/fault.ts'
import { limits } from '#core/limits.ts'
import { readTextFile } from '#sys/files.ts'
import { parseIgnoreFile, type Decision, type IgnoreRules } from './docker-ignore.ts'

export interface BuildContext {
  /** The Dockerfile's path inside the context. */
  dockerfile: string
  /** The ignore file that was used, undefined when there is none. */
  ignoreFile: string | undefined
  /** Bytes of the files; the tar is a little larger. */
  bytes: number
  files: number
  /** The context as an uncompressed tar; read once. */
  pack(): Readable
}

/** A Dockerfile that lies outside the folder is sent under this name. */
const strayDockerfile = '.hangar.Dockerfile'

/**
 * Reads the names and sizes of everything a build gets: the folder less what the ignore file takes away; the Dockerfile
 * and the ignore file always. Symlinks stay symlinks, modes stay, owners become root. `ignorefile` and `dockerfile` are
 * absolute paths. A folder that is too large is a Fault that says how to make it smaller.
 */
export async function openBuildContext(options: {
  folder: string
  dockerfile: string
  ignorefile?: string | undefined
}): Promise<BuildContext> {
  const folder = resolve(options.folder)
  const inside = pathInside(folder, options.dockerfile)
  const ignoreFile = findIgnoreFile({ ...options, folder })
  const rules = parseIgnoreFile(ignoreFile === undefined ? '' : (readTextFile(ignoreFile) ?? ''))
  const always = [inside, ignoreFile && pathInside(folder, ignoreFile)]
  const found: Found = { sources: [], folders: new Set(), bytes: 0, files: 0 }
  await walk({ folder, rules, always: new Set(always.filter((path) => path !== undefined)) }, found)
  if (inside === undefined) {
    const { size } = await lstat(options.dockerfile)
    found.sources.push({ type: 'file', source: options.dockerfile, target: strayDockerfile })
    found.bytes += size
    found.files++
  }
  return {
    dockerfile: inside ?? strayDockerfile,
    ignoreFile,
    bytes: found.bytes,
    files: found.files,
    pack: () => packTar(found.sources.map((source) => ({ ...source, uid: 0, gid: 0 }))),
  }
}

/** Where a path lies in a folder, with slashes; undefined when it lies outside. */
function pathInside(folder: string, path: string): string | undefined {
  const inside = relative(folder, resolve(folder, path))
  const outside = inside === '..' || inside.startsWith(`..${sep}`) || isAbsolute(inside)
  return outside || inside === '' ? undefined : inside.split(sep).join('/')
}

/** The one named, then `<Dockerfile>.dockerignore`, then `.dockerignore` of the folder. */
function findIgnoreFile(options: {
  folder: string
  dockerfile: string
  ignorefile?: string | undefined
}): string | undefined {
  const { folder, dockerfile, ignorefile } = options
  if (ignorefile !== undefined) {
    if (readTextFile(ignorefile) !== undefined) return ignorefile
    throw new Fault('bad_request', `the ignore file ${ignorefile} does not exist`)
  }
  const usual = [`${resolve(folder, dockerfile)}.dockerignore`, join(folder, '.dockerignore')]
  return usual.find((path) => readTextFile(path) !== undefined)
}

interface Walk {
  folder: string
  rules: IgnoreRules
  /** Sent whatever the rules say. */
  always: ReadonlySet<string>
}

interface Found {
  sources: TarSource[]
  /** The folders among the sources. */
  folders: Set<string>
  bytes: number
  files: number
}

/** What is still to be read: a folder and how the rules saw it. */
interface Open {
  path: string
  decision?: Decision
  /** An ignored folder is sent only when something in it is. */
  pending: TarSource[]
}

async function walk(context: Walk, found: Found): Promise<void> {
  const open: Open[] = [{ path: '', pending: [] }]
  for (let next = open.pop(); next; next = open.pop()) {
    const names = (await readdir(join(context.folder, next.path))).sort()
    const folders: Open[] = []
    for (const name of names) {
      const deeper = await visit(context, found, { parent: next, name })
      if (deeper) folders.push(deeper)
    }
    // Depth first in the order of the names, so that the same folder always gives the same tar.
    open.push(...folders.toReversed())
  }
}

async function visit(
  { folder, rules, always }: Walk,
  found: Found,
  { parent, name }: { parent: Open; name: string },
): Promise<Open | undefined> {
  const path = parent.path === '' ? name : `${parent.path}/${name}`
  const decision = rules.decide(path, parent.decision)
  const source = join(folder, path)
  const stat = await lstat(source)
  const sent = !decision.ignored || always.has(path)
  if (stat.isDirectory()) {
    const entry: TarSource = {
      type: 'content',
      content: '',
      target: `${path}/`,
      mode: stat.mode & 0o7777,
      mtime: stat.mtime,
    }
    const wantedBelow = rules.mayIncludeBelow(path) || holdsAny(always, path)
    if (!sent && !wantedBelow) return undefined
    const pending = [...parent.pending, entry]
    if (!sent) return { path, decision, pending }
    add(found, pending, parent)
    return { path, decision, pending: [] }
  }
  // Sockets, pipes and devices cannot be sent, as with Docker.
  if (!sent || !(stat.isFile() || stat.isSymbolicLink())) return undefined
  found.bytes += stat.isFile() ? stat.size : 0
  found.files++
  if (found.bytes > limits.buildContextBytesMax) throw tooLarge(folder)
  const file: TarSource = { type: 'file', source, target: path, mode: stat.mode & 0o7777 }
  add(found, [...parent.pending, file], parent)
  return undefined
}

/** Adds an entry with the folders above it that only now turn out to be needed. */
function add(found: Found, sources: readonly TarSource[], parent: Open): void {
  for (const source of sources) {
    if (source.target.endsWith('/')) {
      if (found.folders.has(source.target)) continue
      found.folders.add(source.target)
    }
    found.sources.push(source)
  }
  parent.pending = []
}

const holdsAny = (paths: ReadonlySet<string>, folder: string): boolean =>
  [...paths].some((path) => path.startsWith(`${folder}/`))

function tooLarge(folder: string): Fault {
  const gigabytes = limits.buildContextBytesMax / 1024 ** 3
  return new Fault(
    'too_large',
    `${basename(folder)} holds more than ${gigabytes} GB for the build; name what it does not need in .dockerignore`,
  )
}
