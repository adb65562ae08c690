import type { AppRef, ResolvedImage } from '#spec/host-api.ts'
import type { MachineConfig } from '#spec/machine-config.ts'
import type { MachineRuntime } from '#spec/runtime.ts'
import type { Life } from '../machine-life.ts'

/**
 * All that a host keeps of one machine. `config` is the JSON that came in, untouched (MCH-39) but for the id and name of the
 * volume that it mounts. Times are milliseconds.
 */
export interface MachineRecord {
  id: string
  name: string
  app: AppRef
  /** The host's small number for the machine: its addresses follow from it. Its own for as long as it exists. */
  index: number
  region: string
  instanceId: string
  config: MachineConfig
  image: ResolvedImage
  life: Life
  cordoned: boolean
  /** May take traffic: written down so that an adopted machine keeps taking it while its checks begin anew. */
  ready: boolean
  /** Known once the network was attached for the first time. */
  ip4: string
  /** What its present or last process runs in, written down before it is started; absent before the first start. */
  runtime?: Pick<MachineRuntime, 'kind' | 'accel'>
  /** The present or last run's log file, by its number. */
  run: number
  /** Moments of the restarts by policy within the window. */
  restarts: number[]
  /** It ran when the host was taken down: it starts again with the host. */
  startWithHost: boolean
  lastError: string | null
  /** When the schedule starts it next, and which schedule that was reckoned from. MCH-78. */
  nextRun?: { schedule: string; at: number }
  createdAt: number
  updatedAt: number
  changedAt: number
  destroyedAt: number | null
}
