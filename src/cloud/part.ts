import type { DaemonSpec } from '#sys/daemon.ts'
import type { Home } from './home.ts'

/** One process that the cloud keeps alive: a native or a role. */
export interface Part {
  readonly name: string
  readonly recordFile: string
  readonly logFile: string
  /** Parts that must be ready before the first start. */
  readonly needs: readonly string[]
  /** Makes folders and configuration; run before each start, repeatable. */
  prepare(): Promise<void>
  /** How it is started; called at each start and never for an adopted one. */
  command(): Omit<DaemonSpec, 'name' | 'recordFile' | 'logFile'>
  /** True when it does its work. May throw: that counts as not yet. */
  probe(): Promise<boolean>
  readonly readyTimeoutMs: number
  readonly stopSignal: NodeJS.Signals
  readonly stopGraceMs: number
  /** What a person can do when it does not start. */
  readonly remedy: string
}

/** Where a part's pid and its output are kept. */
export function filesOf(home: Home, name: string): Pick<Part, 'recordFile' | 'logFile'> {
  return { recordFile: home.record(name), logFile: home.log(name) }
}
