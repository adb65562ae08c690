import type {
  Driver,
  DriverCapabilities,
  DriverProbe,
  ExecRequest,
  ExecResult,
  ExitRecord,
  Program,
  ProgramEnd,
  ProgramRequest,
  StartSpec,
} from './driver.ts'
import { PassThrough } from 'node:stream'
import { unlessAborted } from '#sys/abort.ts'
import { Fault } from '#core/fault.ts'

interface FakeMachine {
  spec: StartSpec
  record: ExitRecord | undefined
  suspended: boolean
  spoiled?: boolean
  waiting: ((record: ExitRecord) => void)[]
}

export interface FakeDriver extends Driver {
  /** Every verb that changed something, in order: `start ID`, `signal ID SIGTERM`, `destroy ID`. */
  readonly calls: string[]
  /** The id of each machine whose root is there. */
  readonly roots: ReadonlySet<string>
  /** The spec of the last start of a machine. */
  spec(id: string): StartSpec | undefined
  /** Ends a running machine, as its process would. */
  finish(id: string, record?: Partial<ExitRecord>): void
  /** The next starts fail with this. */
  failNextStart(error: Error, times?: number): void
  failNextSuspend(error: Error): void
  /** Suspends take for ever from now on. */
  hangSuspends(): void
  /** The next resumes fail with this, and the snapshot stays. */
  failNextResume(error: Error, times?: number): void
  /** A resume finds out that the snapshot is of no use. */
  spoilSnapshot(id: string): void
  /** What a suspended machine had in memory is gone. */
  loseSnapshot(id: string): void
  suspended(id: string): boolean
  /** What a signal does: by default every signal ends the machine with 128 + its number. */
  onSignal: (id: string, signal: NodeJS.Signals) => void
  onExec: (id: string, request: ExecRequest) => Promise<ExecResult>
  /** What an opened program is: by default `cat`. */
  onOpen: (id: string, request: ProgramRequest) => Program
}

const signalNumbers: Partial<Record<NodeJS.Signals, number>> = {
  SIGHUP: 1,
  SIGINT: 2,
  SIGQUIT: 3,
  SIGKILL: 9,
  SIGTERM: 15,
}

/** What a driver of VMs says of itself. */
export const fakeVms = {
  capabilities: {
    suspend: 'snapshot',
    exec: true,
    isolation: 'vm',
    volumes: 'disk',
    rootSize: true,
  },
  probe: { ok: true, note: 'a fake VM', accel: 'kvm' },
} as const

/** Gives back what it reads, says on stderr which signals and sizes it got, and exits with 0 at the end of its input. */
function fakeCat(): Program {
  const [stdout, stderr] = [new PassThrough(), new PassThrough()]
  const ended = Promise.withResolvers<ProgramEnd>()
  ended.promise.catch(() => {})
  stdout.on('end', () => {
    stderr.end()
    ended.resolve({ exitCode: 0, signal: 0, timedOut: false })
  })
  return {
    stdin: stdout,
    stdout,
    stderr,
    exited: ended.promise,
    signal: (signal) => void stderr.write(`${signal}\n`),
    resize: ({ rows, columns }) => void stderr.write(`${rows}x${columns}\n`),
    close: () => {
      for (const stream of [stdout, stderr]) stream.destroy()
      ended.reject(new Fault('timeout', 'the program was given up'))
    },
  }
}

/** A driver in memory, for tests of a machine's life. Machines live as long as the object: hand it to a second host to adopt. */
export function fakeDriver(
  given: { capabilities?: DriverCapabilities; probe?: DriverProbe } = {},
): FakeDriver {
  const machines = new Map<string, FakeMachine>()
  const roots = new Set<string>()
  const calls: string[] = []
  const errors: Record<'start' | 'suspend' | 'resume', Error[]> = {
    start: [],
    suspend: [],
    resume: [],
  }
  let hangs = false
  const failing = (verb: keyof typeof errors) => {
    const error = errors[verb].shift()
    if (error) throw error
  }
  const fail = (verb: keyof typeof errors, error: Error, times: number) =>
    errors[verb].push(...Array.from({ length: times }, () => error))
  const finish = (id: string, given: Partial<ExitRecord> = {}) => {
    const machine = machines.get(id)
    if (!machine || machine.record) return
    machine.record = { exitCode: 0, oomKilled: false, at: Date.now(), ...given }
    for (const resolve of machine.waiting.splice(0)) resolve(machine.record)
  }
  const running = (id: string): FakeMachine | undefined => {
    const machine = machines.get(id)
    return machine && !machine.record ? machine : undefined
  }
  const fake: FakeDriver = {
    name: 'fake',
    capabilities: given.capabilities ?? {
      suspend: 'freeze',
      exec: true,
      isolation: 'none',
      volumes: 'folder',
      rootSize: false,
    },
    calls,
    roots,
    spec: (id) => machines.get(id)?.spec,
    finish,
    failNextStart: (error, times = 1) => fail('start', error, times),
    hangSuspends: () => void (hangs = true),
    failNextSuspend: (error) => fail('suspend', error, 1),
    failNextResume: (error, times = 1) => fail('resume', error, times),
    spoilSnapshot: (id) => {
      const machine = machines.get(id)
      if (machine) machine.spoiled = true
    },
    loseSnapshot: (id) => void machines.delete(id),
    suspended: (id) => running(id)?.suspended === true,
    onSignal: (id, signal) => {
      const number = signalNumbers[signal] ?? 15
      finish(id, { exitCode: 128 + number, signal: number })
    },
    onExec: async () => ({ exitCode: 0, signal: 0, stdout: '', stderr: '', timedOut: false }),
    onOpen: fakeCat,
    probe: async () => given.probe ?? { ok: true, note: 'a fake: nothing runs' },
    start: async (spec, netReady) => {
      calls.push(`start ${spec.id}`)
      await netReady
      failing('start')
      finish(spec.id, { exitCode: 137, signal: 9 })
      roots.add(spec.id)
      machines.set(spec.id, { spec, record: undefined, suspended: false, waiting: [] })
    },
    recover: async (id) => (running(id) ? 'running' : machines.get(id)?.record),
    exited: (id) => {
      const machine = machines.get(id)
      if (!machine) return Promise.reject(new Fault('not_found', `no machine ${id} was started`))
      if (machine.record) return Promise.resolve(machine.record)
      return new Promise((resolve) => machine.waiting.push(resolve))
    },
    signal: async (id, signal) => {
      calls.push(`signal ${id} ${signal}`)
      const machine = running(id)
      if (!machine) return false
      machine.suspended = false
      fake.onSignal(id, signal)
      return true
    },
    exec: (id, request) => {
      calls.push(`exec ${id} ${request.argv.join(' ')}`)
      if (!running(id)) {
        return Promise.reject(new Fault('precondition_failed', `machine ${id} does not run`))
      }
      return fake.onExec(id, request)
    },
    openProgram: async (id, request) => {
      calls.push(`open ${id} ${request.argv.join(' ')}`)
      if (running(id)) return fake.onOpen(id, request)
      throw new Fault('precondition_failed', `machine ${id} does not run`)
    },
    ps: async (id) => {
      const machine = running(id)
      const command = machine?.spec.argv.join(' ') ?? ''
      const blank = { stime: 0, rtime: 0, directory: '/', cpu: 0, rss: 0, listen_sockets: [] }
      return machine ? [{ pid: 1, command, ...blank }] : []
    },
    suspend: async (id, signal) => {
      calls.push(`suspend ${id}`)
      failing('suspend')
      if (hangs) await unlessAborted(signal ?? AbortSignal.any([]), new Promise(() => {}))
      const machine = running(id)
      if (!machine) throw new Fault('precondition_failed', `machine ${id} is not running`)
      machine.suspended = true
    },
    resume: async (id, netReady) => {
      calls.push(`resume ${id}`)
      await netReady
      failing('resume')
      const machine = running(id)
      if (!machine) throw new Fault('precondition_failed', `machine ${id} is not running`)
      if (machine.spoiled) {
        machines.delete(id)
        throw new Fault('native_failed', 'made by another version')
      }
      machine.suspended = false
    },
    stats: async (id) => {
      const machine = running(id)
      if (!machine) return undefined
      const memoryMaxBytes = machine.spec.limits.memoryMb * 1024 * 1024
      return { cpuUsec: 0, memoryBytes: 0, memoryMaxBytes, processes: 1 }
    },
    destroy: async (id, { keepRoot = false } = {}) => {
      calls.push(`destroy ${id}`)
      finish(id, { exitCode: 137, signal: 9 })
      machines.delete(id)
      if (!keepRoot) roots.delete(id)
    },
    releaseUnused: async () => {},
    close: () => {},
    list: async () => [...new Set([...machines.keys(), ...roots])],
  }
  return fake
}
