import type { Clock } from '#core/clock.ts'
import type { Machine, MachineInput, MachineProcess, MachineState } from '#spec/machine.ts'
import type { DeployProgress } from '#spec/release.ts'
import type { Volume } from '#spec/volume.ts'
import type { DeployStep } from './job.ts'

export interface LoggedLine {
  /** Nanoseconds since the epoch, as digits. */
  ns: string
  message: string
}

/**
 * Everything that a deploy does to the world and learns from it. The engine knows nothing else, so that it runs on a
 * simulated world in tests: every call may fail, and the process may die before or after any of them.
 */
export interface DeployWorld {
  clock: Clock
  listMachines(): Promise<Machine[]>
  getMachine(id: string): Promise<Machine>
  createMachine(input: MachineInput): Promise<Machine>
  updateMachine(id: string, input: MachineInput, nonce: string): Promise<Machine>
  startMachine(id: string): Promise<void>
  /** From any state; gone already is no error. */
  destroyMachine(id: string, nonce?: string): Promise<void>
  /** Resolves in one of the states. Fault `wait_timeout` after `timeoutMs`, at most a minute. */
  waitMachine(
    id: string,
    options: { states: readonly MachineState[]; timeoutMs: number; instanceId?: string },
  ): Promise<void>
  /** Takes or, with the holder's nonce, refreshes. Fault `lease_held`. */
  acquireLease(id: string, options: { ttlSeconds: number; nonce?: string }): Promise<string>
  releaseLease(id: string, nonce: string): Promise<void>
  setMetadata(id: string, pair: { key: string; value: string }, nonce: string): Promise<void>
  /** True once every live edge has the machine's present row. */
  routed(id: string, timeoutMs: number): Promise<boolean>
  processes(id: string): Promise<MachineProcess[]>
  /** The last lines of a machine; with `follow` also what comes, until the signal. */
  logs(
    id: string,
    options: { limit: number; follow: boolean; signal: AbortSignal },
  ): AsyncIterable<LoggedLine>
  listVolumes(): Promise<Volume[]>
  createVolume(input: {
    name: string
    region: string
    size_gb: number
    compute?: object | undefined
  }): Promise<Volume>
  /** One line of progress. */
  say(level: DeployProgress['level'], message: string, machine?: string): Promise<void>
  /** Writes down how far the release has come, before what follows is done. */
  saveStep(step: DeployStep): Promise<void>
}
