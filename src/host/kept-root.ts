import { Fault } from '#core/fault.ts'
import type { MachineConfig } from '#spec/machine-config.ts'
import { rootGbOf, rootPersistOf } from '#spec/rootfs.ts'
import { runtimeMetadataKey, runtimeWishOf, type RuntimeKind } from '#spec/runtime.ts'
import type { MachineRecord } from './store/index.ts'

type Rooted = Pick<MachineRecord, 'config' | 'life'>

/** MCH-65: whether the machine asks that what it wrote to its root stays for its next start. */
const asksForRoot = ({ config, life }: Rooted): boolean =>
  rootPersistOf(config) !== 'never' && life.newRoot !== true

/** Whether it stays: because it asks for that, or because its snapshot was lost and nothing has run since (MCH-42). */
export function keepsRoot(record: Rooted): boolean {
  const { life } = record
  if (life.state === 'destroying') return false
  const owed = (life.resume || life.owesRoot === true) && life.newRoot !== true
  return owed || asksForRoot(record)
}

/** MCH-65: an update leaves the root to a version that says `always`, from one that kept it for its own starts at least. */
export const endsRoot = (before: MachineConfig, after: MachineConfig): boolean =>
  rootPersistOf(before) === 'never' || rootPersistOf(after) !== 'always'

/** Where the root is that the next start takes over; undefined when it builds it anew, wherever it likes. */
export function keptRootIn(record: MachineRecord): RuntimeKind | undefined {
  return record.runtime && keepsRoot(record) ? record.runtime.kind : undefined
}

const nameOf = { qemu: 'VM', container: 'container' } as const

/**
 * A root is a folder of a container or the disk of a VM, and cannot go from the one to the other.
 * @throws Fault `invalid` when the machine is to keep its root, and to run in something else
 */
export function requireSameRuntime(record: MachineRecord): void {
  const kept = asksForRoot(record) ? keptRootIn(record) : undefined
  const wish = runtimeWishOf(record.config)
  if (!kept || wish === 'auto' || wish === kept) return
  throw new Fault(
    'invalid',
    `machine ${record.id} keeps its root (rootfs.persist is "${rootPersistOf(record.config)}"), which is that of a ${nameOf[kept]} and cannot become that of a ${nameOf[wish]}; take metadata ${runtimeMetadataKey} back, or set rootfs.persist to "never" first, which discards what the machine wrote`,
  )
}

/**
 * What an update to this config would ask of a root that it keeps.
 * @throws Fault `invalid` for what a root cannot do: become smaller, or go into another runtime
 */
export function checkKeptRoot(record: MachineRecord, config: MachineConfig): void {
  if (!asksForRoot(record) || endsRoot(record.config, config)) return
  requireSameRuntime({ ...record, config })
  const [before, after] = [rootGbOf(record.config), rootGbOf(config)]
  if (after >= before) return
  throw new Fault(
    'invalid',
    `machine ${record.id} keeps its root, which has ${before} GB and cannot shrink to ${after} GB; leave rootfs.size_gb at ${before}, or set rootfs.persist to "never" or "restart", which builds the root anew`,
  )
}
