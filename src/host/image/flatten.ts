import { Fault } from '#core/fault.ts'
import { limits } from '#core/limits.ts'
import { readLayer } from './layer-stream.ts'
import { MergedTree, type FolderNode, type Inode } from './merged-tree.ts'
import { openSquashWriter, type SquashWriter } from './squash-writer.ts'
import type { TarEntry } from './tar-entry.ts'
import { tarEnd, tarHeader, tarPadding } from './tar-writer.ts'

/**
 * Turns the layers of an image into one squashfs, never unpacking them on disk. The first pass reads every layer's
 * headers into a merged tree; the second reads the layers again and sends only the data of the files that won.
 */
export async function flatten(options: {
  /** Files of the layers, the lowest first, each read as soon as it is there; gzip, zstd or plain tar. */
  layers: readonly (string | Promise<string>)[]
  squashfsPath: string
  /** Uncompressed bytes of all layers together. */
  bytesMax?: number
}): Promise<void> {
  const bytesMax = options.bytesMax ?? limits.imageBytesMax
  const plan = planOf(await mergeLayers(options.layers, bytesMax), options.layers.length)
  const squash = openSquashWriter(options.squashfsPath)
  try {
    for (const entry of plan.fixed) {
      squash.write(tarHeader(entry))
      await squash.ready()
    }
    for (const [layer, path] of options.layers.entries()) {
      const files = plan.files[layer]
      if (files?.size) await sendFiles({ path: await path, files, squash, bytesMax })
    }
    squash.write(tarEnd)
    await squash.finish()
  } finally {
    squash.abort()
  }
}

async function mergeLayers(
  layers: readonly (string | Promise<string>)[],
  bytesMax: number,
): Promise<MergedTree> {
  const tree = new MergedTree()
  let bytesLeft = bytesMax
  for (const [layer, path] of layers.entries()) {
    let index = 0
    tree.beginLayer(layer)
    bytesLeft -= await readLayer({
      path: await path,
      bytesMax: bytesLeft,
      handler: {
        entry(entry) {
          tree.add(entry, index++)
          return false
        },
        data() {},
        dataEnd() {},
      },
    })
  }
  return tree
}

interface Plan {
  /** Entries without data: folders (parents first), symbolic links, devices. */
  fixed: TarEntry[]
  /** For each layer: index of a file's entry → the names under which it is in the image. */
  files: Map<number, string[]>[]
}

const pathBytesMax = 4096

function planOf(tree: MergedTree, layerCount: number): Plan {
  const plan: Plan = { fixed: [], files: Array.from({ length: layerCount }, () => new Map()) }
  const addLeaf = (path: string, inode: Inode) => {
    if (inode.entry.type !== 'file') {
      plan.fixed.push({ ...inode.entry, path, xattrs: keptXattrs(inode.entry) })
      return
    }
    const files = plan.files[inode.layer] as Map<number, string[]>
    const names = files.get(inode.index)
    if (names) names.push(path)
    else files.set(inode.index, [path])
  }
  const walk = (folder: FolderNode, path: string) => {
    if (path.length > pathBytesMax) {
      throw new Fault('image_unavailable', `the image has a path longer than ${pathBytesMax} bytes`)
    }
    plan.fixed.push(folderEntry(folder, path))
    for (const [name, node] of folder.children) {
      const childPath = path === '' ? name : `${path}/${name}`
      if (node.kind === 'folder') walk(node, childPath)
      else addLeaf(childPath, node.inode)
    }
  }
  walk(tree.root, '')
  return plan
}

function folderEntry(folder: FolderNode, path: string): TarEntry {
  const { meta } = folder
  return {
    type: 'directory',
    path: path === '' ? './' : `${path}/`,
    link: '',
    mode: meta?.mode ?? 0o755,
    uid: meta?.uid ?? 0,
    gid: meta?.gid ?? 0,
    mtime: meta?.mtime ?? 0,
    size: 0,
    deviceMajor: 0,
    deviceMinor: 0,
    xattrs: meta && keptXattrs(meta),
  }
}

/**
 * File capabilities and the users' own attributes go into the image. `trusted.*` and `*.overlay.*` would be orders to the
 * overlay that the machine's root becomes, and squashfs has no room for others.
 */
function keptXattrs(entry: TarEntry): ReadonlyMap<string, string> | undefined {
  if (!entry.xattrs) return undefined
  const kept = [...entry.xattrs].filter(
    ([name]) =>
      name === 'security.capability' ||
      (name.startsWith('user.') && !name.startsWith('user.overlay.')),
  )
  return kept.length > 0 ? new Map(kept) : undefined
}

async function sendFiles(options: {
  path: string
  files: ReadonlyMap<number, string[]>
  squash: SquashWriter
  bytesMax: number
}): Promise<void> {
  const { files, squash } = options
  let index = 0
  let current: { entry: TarEntry; names: string[] } | undefined
  await readLayer({
    path: options.path,
    bytesMax: options.bytesMax,
    pause: () => squash.ready(),
    handler: {
      entry(entry) {
        const names = files.get(index++)
        if (names === undefined) return false
        current = { entry, names }
        const [path] = names as [string]
        squash.write(tarHeader({ ...entry, path, link: '', xattrs: keptXattrs(entry) }))
        return true
      },
      data: (chunk) => squash.write(chunk),
      dataEnd() {
        const { entry, names } = current as { entry: TarEntry; names: string[] }
        squash.write(tarPadding(entry.size))
        for (const path of names.slice(1)) {
          squash.write(
            tarHeader({
              ...entry,
              type: 'hardlink',
              path,
              link: names[0] as string,
              size: 0,
              xattrs: undefined,
            }),
          )
        }
      },
    },
  })
}
