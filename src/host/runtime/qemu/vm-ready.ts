import { statSync } from 'node:fs'
import { isAlive } from '#sys/process.ts'
import type { VmFolder, VmRecord } from './vm-folder.ts'
import { filesOf, type VmmProcess } from './vm-launch.ts'
import { linksAt } from './vm-network.ts'

/** A launcher that waits in its group, namespaces and root. */
export interface ReadyVmm {
  vmm: VmmProcess
  /** Which files it has open. */
  files: string
  /** Which link and tap its machine has; undefined for a machine without a network. */
  links: string | undefined
}

/**
 * The launchers of suspended VMs, by machine: each waits for the word with which a resume begins, in the place that was
 * made for it. They are in our memory alone, and end with us: a resume that finds none makes its own.
 */
export class ReadyVmms {
  readonly #ready = new Map<string, ReadyVmm>()

  keep(id: string, ready: ReadyVmm): void {
    this.#ready.set(id, ready)
    void ready.vmm.gone.then(() => {
      if (this.#ready.get(id) === ready) this.#ready.delete(id)
    })
  }

  /** Whoever takes it lets it begin, or kills it. */
  take(id: string): ReadyVmm | undefined {
    const ready = this.#ready.get(id)
    this.#ready.delete(id)
    return ready && isAlive(ready.vmm.identity) ? ready : undefined
  }

  /** Those that waited longest, when there are more than so many. */
  beyond(most: number): string[] {
    return [...this.#ready.keys()].slice(0, Math.max(0, this.#ready.size - most))
  }

  closeAll(): void {
    for (const { vmm } of this.#ready.values()) vmm.giveUp()
    this.#ready.clear()
  }
}

/** Which files, whatever they are called: one that was put in another's place is another. */
export function identityOf(at: VmFolder, record: VmRecord): string {
  const found = filesOf(at, record, { incoming: true }).map(({ path }) => statSync(path))
  return found.map(({ dev, ino }) => `${dev}:${ino}`).join(' ')
}

/**
 * Whether a launcher has open what a resume would give it now, and stands where the machine has its network now: both may
 * have been made anew while it waited.
 */
export function isStillRight(ready: ReadyVmm, at: VmFolder, record: VmRecord): boolean {
  const { pid } = ready.vmm.identity
  const namespace = (path: string) => statSync(path).ino
  try {
    return (
      namespace(`/proc/${pid}/ns/net`) === namespace(record.netnsPath) &&
      (ready.links === undefined || ready.links === linksAt(pid)) &&
      ready.files === identityOf(at, record)
    )
  } catch {
    return false // Something of it is gone.
  }
}
