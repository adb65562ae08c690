import type { Duplex, Readable, Writable } from 'node:stream'
import type { TerminalSize } from '#host/guest/index.ts'
import type { MachineProcess } from '#spec/machine.ts'
import type { RuntimeKind } from '#spec/runtime.ts'

export type { MachineProcess }

/**
 * How a machine runs. The host room decides what should run; a driver makes it so and says what became of it. Every
 * verb may be repeated, and a driver opened anew over the same folder adopts what the one before it started.
 */
export interface Driver {
  readonly name: string
  readonly capabilities: DriverCapabilities
  /** Really runs something, so that a yes can be believed; what did not work is tried anew. Never throws. */
  probe(): Promise<DriverProbe>
  /**
   * Builds the root anew unless the spec says to keep it (MCH-65) and starts the machine's command; resolves when its
   * process runs. A machine that runs already, or what is left of it, is destroyed first. A Fault (`invalid`) when the image lacks the command or the user.
   * Nothing runs before `netReady` resolves: then the namespace is there. What it rejects with fails the start.
   */
  start(spec: StartSpec, netReady?: Promise<unknown>): Promise<void>
  /**
   * What is true of a machine right now: running (suspended counts, also when only its whole snapshot is left), how it
   * ended, or undefined: nothing known of it. A half snapshot is nothing; a VM that only stands still (`still`) goes on.
   */
  recover(id: string): Promise<'running' | ExitRecord | undefined>
  /** Resolves when the machine's supervisor or process is gone; also for machines that a driver before us started. */
  exited(id: string): Promise<ExitRecord>
  /**
   * Signals the machine's main process, e.g. `SIGTERM`. False when nothing runs. A suspended machine is resumed by it, but
   * SIGKILL discards a snapshot: that is the machine's end.
   */
  signal(id: string, signal: NodeJS.Signals): Promise<boolean>
  /** Runs a program inside the running machine. A program that fails or is missing is a result, not an error. */
  exec(id: string, request: ExecRequest): Promise<ExecResult>
  /**
   * The same with its streams open, for a terminal or a pipe; resolves when it was asked for. It ends with its deadline, with
   * `close`, and with this process: nothing of it is left running then.
   */
  openProgram(id: string, request: ProgramRequest): Promise<Program>
  /** The processes of a running machine, PID 1 first; empty when nothing runs. */
  ps(id: string): Promise<MachineProcess[]>
  /**
   * Resolves when the machine stands still and, with `snapshot`, its state is whole on the disk and its memory free. Given up
   * by the signal or by `destroy`, and after a time of its own, it rejects: then the machine goes on, or its monitor is dead
   * or deaf. Connections of programs inside to `/.fly/api` are ended before.
   */
  suspend(id: string, signal?: AbortSignal): Promise<void>
  /**
   * Goes on where `suspend` left it. When it rejects, `recover` says whether the snapshot still stands and this may be asked
   * again; when that finds nothing, the owner starts the machine with `keepRoot`. With `snapshot`, nothing runs before
   * `netReady` resolves.
   */
  resume(id: string, netReady?: Promise<unknown>): Promise<void>
  /**
   * With volumes as `disk`: runs the action while the machine writes to no disk, and lets it go on however that ends; what
   * the guest could flush is in the disks. Undefined where the host mounts the volumes itself.
   */
  still?<T>(id: string, action: () => Promise<T>): Promise<T>
  /** The file of an attached disk became larger. False when the machine stands still or is over, and sees it later. */
  grow?(id: string, source: string): Promise<boolean>
  /** How full an attached disk is, by the word of the guest that has it mounted; undefined when it says nothing. */
  usage?(id: string, source: string): Promise<DiskUsage | undefined>
  /** Undefined when the machine does not run. */
  stats(id: string): Promise<MachineStats | undefined>
  /**
   * Packets that the machine sent in another's name and that never reached the packet filter of its host. Undefined where
   * that filter sees them all.
   */
  spoofed?(id: string): Promise<number>
  /**
   * Kills what runs, without waiting for a verb that is under way, and removes mounts, cgroup and records. The log file
   * stays: it belongs to the host's logs. With `keepRoot` stays what the machine wrote to its root: nothing else is known of
   * it, and `list` still names it.
   */
  destroy(id: string, options?: { keepRoot?: boolean }): Promise<void>
  /**
   * Lets go of what is held for later, as before the host goes down: images that no machine runs and that the host does not
   * want kept, what was made for the next resumes, and the host's control group when no machine is in it.
   */
  releaseUnused(): Promise<void>
  /** Lets go of the channels to all machines, as the end of this process would: they run on, for the next driver. */
  close(): void
  /** The ids of all machines that left a trace here, running or not. */
  list(): Promise<string[]>
}

/** Takes a connection of a program inside a machine to its `/.fly/api` (MCH-96). */
export type OnApi = (id: string, connection: Duplex) => void

/** What is asked of machines, whichever driver has them. */
export type MachineVerbs = Omit<Driver, 'name' | 'capabilities' | 'probe'>

export interface DriverCapabilities {
  /** `freeze` keeps the memory in place; `snapshot` writes it to disk and frees it. */
  suspend: 'freeze' | 'snapshot' | 'none'
  exec: boolean
  /** What separates a machine from the host. */
  isolation: 'vm' | 'container' | 'none'
  /** What the source of a mount is: a folder that the host mounted, or the file that is the disk. */
  volumes: 'folder' | 'disk'
  /** Whether a machine has to keep to `rootSizeMb`; otherwise it may fill the disk of its host. */
  rootSize: boolean
}

export interface DriverProbe {
  ok: boolean
  /** For people: what was chosen and why, or why it cannot work and what mends it. */
  note: string
  /** Of a VM: whether the processor runs it (`kvm`) or a program that plays one (`tcg`, several times slower). */
  accel?: 'kvm' | 'tcg'
}

export interface StartSpec {
  id: string
  instanceId: string
  /** Which of a host's drivers, where it has several; a driver alone takes every spec. */
  runtime?: RuntimeKind
  /** What the machine wrote to its root before is kept, if it is still there (MCH-42, MCH-65): over any image. */
  keepRoot?: boolean
  /** What it writes now is to outlive its process: what it syncs is on the disk, and a start cut short does not take it. */
  lastingRoot?: boolean
  /** How much the machine can write to its root, in MiB: `DriverCapabilities.rootSize`. A root that is kept grows to it, and never shrinks. */
  rootSizeMb?: number
  /** The image's root, read-only. Shared by all machines of a digest. */
  squashfsPath: string
  argv: string[]
  env: Record<string, string>
  /** `name|uid[:group|gid]`, resolved in the image; empty is root. */
  user: string
  /** Made when the image lacks it; empty is `/`. */
  workdir: string
  hostname: string
  /** The whole of /etc/hosts. */
  hosts: string
  /** The whole of /etc/resolv.conf. */
  resolvConf: string
  files: MachineFile[]
  mounts: MachineMount[]
  /** Of a network namespace that exists, or will once `netReady` resolves. */
  netnsPath: string
  limits: MachineLimits
  /** Appended to, as `RunLog` does. */
  logFile: string
  tty: boolean
}

export interface MachineFile {
  /** Absolute, inside the machine; missing folders are made. */
  path: string
  content: Buffer
  /** Permission bits, e.g. 0o644. */
  mode: number
}

export interface MachineMount {
  /** A folder of the host, or the file that is the disk: `DriverCapabilities.volumes`. */
  source: string
  /** Where the machine sees it, read and write. */
  path: string
}

export interface MachineLimits {
  cpus: number
  cpuKind: 'shared' | 'performance'
  memoryMb: number
  /** A VM's own; a container has none (MCH-64). */
  swapMb?: number
}

export interface ExitRecord {
  /** 128 + signal when a signal ended the process, as shells count. */
  exitCode: number
  signal?: number
  oomKilled: boolean
  /** Milliseconds since the epoch. */
  at: number
  /** Set when the end was no ordinary exit: the supervisor was killed, or left no record. */
  error?: string
}

export interface ExecRequest {
  argv: string[]
  /** Added to the machine's own environment. */
  env?: Record<string, string>
  stdin?: string | Buffer
  timeoutMs: number
  /** Of stdout and of stderr, each; the rest is read and dropped. */
  outputBytesMax: number
}

export interface ExecResult {
  /** 127 when the program was not found, 124 when it ran past its time. */
  exitCode: number
  /** 0, or the signal that ended it. */
  signal: number
  stdout: string
  stderr: string
  timedOut: boolean
}

export interface ProgramRequest {
  argv: string[]
  /** Added to the machine's own environment. */
  env?: Record<string, string>
  /** It gets a terminal of this size; stderr is then in stdout. */
  tty?: TerminalSize
  timeoutMs: number
}

/** A program that runs inside a machine. What is not read holds it up. */
export interface Program {
  /** Ended, the program reads an end of file; what it still writes comes. */
  stdin: Writable
  stdout: Readable
  stderr: Readable
  /** Its end, when its output has been pushed. A Fault when it could not begin, was given up, or cannot be heard of any more. */
  exited: Promise<ProgramEnd>
  /** To its process group; Ctrl-C of a terminal is a byte of stdin. */
  signal(signal: NodeJS.Signals): void
  resize(size: TerminalSize): void
  /** Gives up: the program and its session are killed. */
  close(): void
}

/** As of an `ExecResult`. */
export type ProgramEnd = Pick<ExecResult, 'exitCode' | 'signal' | 'timedOut'>

export interface DiskUsage {
  blockBytes: number
  blocks: number
  blocksFree: number
  blocksAvailable: number
}

export interface MachineStats {
  /** Microseconds of processor time since the start. */
  cpuUsec: number
  memoryBytes: number
  memoryMaxBytes: number
  processes: number
}
