import { Fault } from '#core/fault.ts'
import type { TarEntry } from './tar-entry.ts'

/**
 * What the layers of an image add up to, in memory and without their data: each path leads to the entry of the layer
 * that has the last word. Symbolic links in the way of a path are followed inside this tree, so no name of a layer can
 * reach anything outside of it.
 */
export class MergedTree {
  readonly root: FolderNode = newFolder(0)
  #layer = 0
  #entries = 0

  /** All entries that follow are of this layer; layers come in order, the lowest first. */
  beginLayer(layer: number): void {
    this.#layer = layer
  }

  /** `index` counts the entries of the layer. */
  add(entry: TarEntry, index: number): void {
    if (++this.#entries > entriesMax) throw refuse(`it has more than ${entriesMax} entries`)
    const parts = cleanPath(entry.path)
    const name = parts.pop()
    if (name === undefined) {
      if (entry.type === 'directory') this.root.meta = entry
      return
    }
    if (name.startsWith('.wh.')) {
      this.#whiteout(parts, name)
      return
    }
    const parent = this.#folder(parts, true)
    if (parent === undefined) throw refuse(`"${entry.path}" lies below something that is no folder`)
    if (entry.type === 'directory') this.#addFolder(parent, name, entry)
    else if (entry.type === 'hardlink') this.#addLink(parent, name, entry)
    else {
      const inode = { layer: this.#layer, index, entry }
      parent.children.set(name, { kind: 'leaf', layer: this.#layer, inode })
    }
  }

  #addFolder(parent: FolderNode, name: string, entry: TarEntry): void {
    const present = parent.children.get(name)
    if (present?.kind === 'folder') {
      present.layer = this.#layer
      present.meta = entry
    } else {
      parent.children.set(name, { ...newFolder(this.#layer), depth: parent.depth + 1, meta: entry })
    }
  }

  #addLink(parent: FolderNode, name: string, entry: TarEntry): void {
    const parts = cleanPath(entry.link)
    const targetName = parts.pop()
    const target =
      targetName === undefined ? undefined : this.#folder(parts, false)?.children.get(targetName)
    if (target?.kind !== 'leaf') {
      throw refuse(
        `"${entry.path}" is a hard link to "${entry.link}", which is no file of the image`,
      )
    }
    parent.children.set(name, { kind: 'leaf', layer: this.#layer, inode: target.inode })
  }

  #whiteout(parts: string[], name: string): void {
    const parent = this.#folder(parts, false)
    if (name === '.wh..wh..opq') {
      if (parent) this.#hideBelow(parent)
      return
    }
    // Other names of this form are the storage of a union file system that leaked into the layer.
    if (name.startsWith('.wh..wh.')) return
    const hidden = name.slice('.wh.'.length)
    if (hidden === '' || hidden === '.' || hidden === '..') throw refuse(`"${name}" hides nothing`)
    if (parent) this.#hide(parent, hidden)
  }

  /** A whiteout hides only what lower layers brought, wherever in its own layer it stands. */
  #hide(parent: FolderNode, name: string): void {
    const node = parent.children.get(name)
    if (node?.kind === 'folder') this.#hideBelow(node)
    const keep = node?.kind === 'folder' && node.children.size > 0
    if (node && node.layer < this.#layer && !keep) parent.children.delete(name)
  }

  #hideBelow(folder: FolderNode): void {
    for (const name of folder.children.keys()) this.#hide(folder, name)
  }

  /** The folder at a path, symbolic links followed; missing ones are made on demand. */
  #folder(path: string[], create: boolean): FolderNode | undefined {
    const stack = [this.root]
    const todo = path.toReversed()
    for (let links = 0; todo.length > 0;) {
      const part = todo.pop() as string
      const folder = stack.at(-1) as FolderNode
      if (part === '' || part === '.') continue
      if (part === '..') {
        if (stack.length > 1) stack.pop()
        continue
      }
      let next = folder.children.get(part)
      if (next === undefined) {
        if (!create) return undefined
        if (folder.depth >= depthMax) throw refuse(`its folders nest deeper than ${depthMax}`)
        next = { ...newFolder(this.#layer), depth: folder.depth + 1 }
        folder.children.set(part, next)
      }
      if (next.kind === 'folder') {
        stack.push(next)
        continue
      }
      const { entry } = next.inode
      if (entry.type !== 'symlink') return undefined
      if (++links > linksMax)
        throw refuse(`too many symbolic links on the way to "${path.join('/')}"`)
      if (entry.link.startsWith('/')) stack.length = 1
      todo.push(...entry.link.split('/').toReversed())
    }
    return stack.at(-1)
  }
}

export interface Inode {
  layer: number
  index: number
  entry: TarEntry
}
export interface LeafNode {
  kind: 'leaf'
  layer: number
  inode: Inode
}
export interface FolderNode {
  kind: 'folder'
  layer: number
  depth: number
  /** Absent for a folder that only its contents imply. */
  meta: TarEntry | undefined
  children: Map<string, FolderNode | LeafNode>
}

const entriesMax = 1_000_000
const depthMax = 512
const linksMax = 40

const newFolder = (layer: number): FolderNode => ({
  kind: 'folder',
  layer,
  depth: 0,
  meta: undefined,
  children: new Map(),
})

function refuse(why: string): Fault {
  return new Fault('image_unavailable', `the image cannot be laid out: ${why}; build it again`)
}

/** The parts of a name below the root; a name that climbs out of it is refused. */
function cleanPath(path: string): string[] {
  const parts: string[] = []
  for (const part of path.split('/')) {
    if (part === '' || part === '.') continue
    if (part !== '..') parts.push(part)
    else if (parts.pop() === undefined) throw refuse(`"${path}" climbs out of its root`)
  }
  if (parts.length > depthMax)
    throw refuse(`"${path.slice(0, 200)}…" nests deeper than ${depthMax}`)
  return parts
}
