import type { Attachment } from '#host/net/index.ts'
import type { LocalImage } from '#host/image/index.ts'
import type { MachineFile, MachineMount } from '#host/runtime/index.ts'
import type { Agent } from '../agent.ts'
import type { MachineRecord } from '../store/index.ts'

/** A start under way: what each hook found or made, for the hooks of later stages. */
export interface Launch {
  agent: Agent
  record: MachineRecord
  /** Ends waits when the machine is killed meanwhile. */
  signal: AbortSignal
  image?: LocalImage
  net?: Attachment
  /** Resolves when the namespace that `net` names is there. */
  netReady?: Promise<unknown>
  /** What the machine wrote to its root stays: after a lost snapshot (MCH-42), or because it asks for that (MCH-65). */
  keepRoot: boolean
  mounts: MachineMount[]
  files: MachineFile[]
  secrets: Record<string, string>
}

/**
 * One part of starting a machine and of clearing up behind it. Both may be repeated; `poststop` must be safe when its
 * `prestart` never ran.
 */
export interface Hook {
  name: string
  prestart?(launch: Launch): Promise<void>
  poststop?(agent: Agent, record: MachineRecord): Promise<void>
}
