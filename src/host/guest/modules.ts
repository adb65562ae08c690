/**
 * What a machine's kernel needs beyond what Debian builds in, before and after its root is mounted. Those that a VMM
 * offers no device for do nothing.
 */
export const wantedModules = [
  'virtio_mmio',
  'virtio_console',
  'vmw_vsock_virtio_transport',
  'virtio_blk',
  'squashfs',
  'overlay',
  'crc32c_generic',
  'ext4',
  'virtio_net',
  'virtio_rng',
  'virtio_balloon',
] as const

/** The kernel takes both for the same letter in a module's name. */
export const moduleName = (file: string) =>
  (file.split('/').at(-1) ?? '').replace(/\.ko(\.(xz|zst))?$/, '').replaceAll('-', '_')

/** The names in `depends=` of a module's own description. */
export function dependenciesOf(module: Buffer): string[] {
  const at = module.indexOf('\0depends=')
  if (at === -1) return []
  const from = at + '\0depends='.length
  const end = module.indexOf(0, from)
  const words = module.toString('latin1', from, end)
  return words.split(',').filter(Boolean).map(moduleName)
}

/**
 * The wanted modules and all that they depend on, each after what it needs. `read` gives a module's bytes, or undefined
 * for one that the kernel has built in.
 */
export async function inLoadOrder(
  wanted: readonly string[],
  read: (name: string) => Promise<Buffer | undefined>,
): Promise<{ name: string; content: Buffer }[]> {
  const ordered: { name: string; content: Buffer }[] = []
  const seen = new Set<string>()
  const add = async (name: string): Promise<void> => {
    if (seen.has(name)) return
    seen.add(name)
    const content = await read(name)
    if (!content) return
    for (const needed of dependenciesOf(content)) await add(needed)
    ordered.push({ name, content })
  }
  for (const name of wanted) await add(name)
  return ordered
}
