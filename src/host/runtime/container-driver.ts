import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { systemClock } from '#core/clock.ts'
import { Fault, messageOf } from '#core/fault.ts'
import { limits } from '#core/limits.ts'
import { tailOfFile } from '#sys/files.ts'
import type { Logger } from '#sys/log.ts'
import { isAlive, processStartTime, run, signalProcess } from '#sys/process.ts'
import { initPath, ociConfig, ociProcess } from './bundle.ts'
import {
  adoptSupervisor,
  countsSwap,
  findCgroups,
  isFrozen,
  oomKills,
  processesOf,
  removeCgroup,
  removeEmptyCgroups,
  setFrozen,
  useOf,
} from './cgroup.ts'
import { spawnConmon, type Conmon } from './conmon.ts'
import { execInContainer } from './container-exec.ts'
import { chooseRuntime, type RuntimeChoice } from './container-probe.ts'
import type { Driver, ExecRequest, ExecResult, ExitRecord, StartSpec } from './driver.ts'
import { ExitWatch } from './exit-watch.ts'
import { IdLocks } from './id-locks.ts'
import {
  bootId,
  discard,
  emptyTrash,
  machineFolder,
  makeFolders,
  readEnd,
  readExitCode,
  readRecord,
  removeState,
  runtimeFolders,
  writeEnd,
  writeRecord,
  type MachineFolder,
  type MachineRecord,
} from './machine-folder.ts'
import { imageMountPath, mountImage, mountRoot, unmount, unmountUnusedImages } from './mounts.ts'
import { prepareRoot, type PreparedRoot } from './prepare-root.ts'
import { describeProcesses, processesNaming, takesSignals } from './processes.ts'
import { hasProgram } from './tree-files.ts'

export interface ContainerDriverOptions {
  /** Records, overlays and mounts of this host's machines. */
  dir: string
  /** Names the cgroup parent: two hosts on one kernel do not meet. */
  hostId: string
  log: Logger
}

const createTimeoutMs = 30_000
/** conmon writes the exit code within moments of the container's end; past this it hangs. */
const lastWriteMs = 5_000
const imageLock = '/images'

/**
 * Machines as containers: crun or runc under conmon. A weaker wall than a VM: all machines share the host's kernel.
 * What a machine is doing is read from the kernel and from conmon's files each time, never from our memory.
 */
export function openContainerDriver(options: ContainerDriverOptions): Driver {
  if (/[:,\\\s]/.test(options.dir)) {
    throw new Fault(
      'bad_request',
      `the folder ${options.dir} has a character that mounts cannot take`,
    )
  }
  return new ContainerDriver(options)
}

class ContainerDriver implements Driver {
  readonly name = 'container'
  readonly capabilities = { suspend: 'freeze', exec: true, isolation: 'container' } as const
  readonly #log: Logger
  readonly #folders
  readonly #cgroups = findCgroups()
  readonly #cgroupParent: string
  readonly #locks = new IdLocks()
  readonly #watch: ExitWatch
  /** When a container was first seen gone with its conmon still there. */
  readonly #goneSince = new Map<string, number>()
  #choice: Promise<RuntimeChoice> | undefined
  #starting = 0

  constructor(options: ContainerDriverOptions) {
    this.#log = options.log
    this.#folders = runtimeFolders(options.dir)
    this.#cgroupParent = `/hangar-${options.hostId}`
    emptyTrash(this.#folders)
    this.#watch = new ExitWatch({
      exitsDir: this.#folders.exits,
      mayHaveEnded: (id) => !this.#runs(id),
      settle: (id) => this.#locks.run(id, () => this.#settle(id)),
      onError: (id, error) => this.#log.error({ id, error: messageOf(error) }, 'cannot settle'),
    })
  }

  async probe() {
    const choice = await this.#chooseRuntime()
    return { ok: choice.runtime !== undefined, note: choice.note }
  }

  #chooseRuntime(): Promise<RuntimeChoice> {
    this.#choice ??= chooseRuntime({ cgroups: this.#cgroups, cgroupParent: this.#cgroupParent })
    return this.#choice
  }

  async start(spec: StartSpec): Promise<void> {
    const choice = await this.#chooseRuntime()
    const { runtime } = choice
    if (!runtime) throw new Fault('native_failed', choice.note)
    await this.#locks.run(spec.id, async () => {
      this.#starting++
      try {
        await this.#clear(spec.id)
        await this.#start(spec, runtime)
      } catch (error) {
        await this.#clear(spec.id)
        discard(this.#folders, this.#folder(spec.id).dir)
        throw error
      } finally {
        this.#starting--
      }
    })
  }

  async #start(spec: StartSpec, runtime: string): Promise<void> {
    const at = this.#folder(spec.id)
    const marks: [string, number][] = [['', performance.now()]]
    const mark = (name: string) => marks.push([name, performance.now()])
    makeFolders(at)
    const record: MachineRecord = {
      id: spec.id,
      instanceId: spec.instanceId,
      bootId,
      runtime,
      started: false,
      squashfsPath: spec.squashfsPath,
      memoryMb: spec.limits.memoryMb,
    }
    const conmon = this.#spawnConmon(spec, at, record)
    mark('conmon')
    const image = await this.#locks.run(imageLock, () =>
      mountImage(this.#folders, spec.squashfsPath),
    )
    mark('image')
    await mountRoot(at, image)
    mark('overlay')
    this.#writeBundle(spec, at, prepareRoot(spec, at.root))
    mark('bundle')
    record.container = await conmon.create()
    writeRecord(at, record)
    mark('create')
    await this.#startContainer(spec, record)
    record.started = true
    writeRecord(at, record)
    mark('start')
    const steps = marks.slice(1).map(([name, time], i) => {
      return `${name} ${(time - (marks[i]?.[1] ?? 0)).toFixed(1)}`
    })
    this.#log.debug({ id: spec.id, stepsMs: steps.join(', ') }, 'container started')
  }

  #writeBundle(spec: StartSpec, at: MachineFolder, prepared: PreparedRoot): void {
    const config = ociConfig({
      spec,
      rootPath: at.root,
      cgroupPath: this.#cgroupPath(spec.id),
      swapIsCounted: countsSwap(this.#cgroups),
      ...prepared,
    })
    writeFileSync(join(at.bundle, 'config.json'), JSON.stringify(config), { mode: 0o600 })
  }

  /** The record names conmon before conmon may act. */
  #spawnConmon(spec: StartSpec, at: MachineFolder, record: MachineRecord): Conmon {
    const conmon = spawnConmon({
      id: spec.id,
      runtime: record.runtime,
      stateDir: this.#folders.state,
      bundle: at.bundle,
      pidFile: at.pidFile,
      persistDir: at.persist,
      exitsDir: this.#folders.exits,
      logFile: spec.logFile,
      tty: spec.tty,
      logBytesMax: limits.logBytesPerMachineMax,
      timeoutMs: createTimeoutMs,
      onGone: () => this.#watch.look(spec.id),
    })
    record.conmon = conmon.identity
    writeRecord(at, record)
    const group = `${this.#cgroupParent}/.supervisors`
    adoptSupervisor(this.#cgroups, group, conmon.identity.pid)
    return conmon
  }

  async #startContainer(spec: StartSpec, record: MachineRecord): Promise<void> {
    const args = ['--root', this.#folders.state, 'start', spec.id]
    const result = await run(record.runtime, args, { timeoutMs: createTimeoutMs })
    if (result.code === 0) return
    const words = result.stderr.trim() || tailOfFile(spec.logFile, 500)
    throw new Fault('native_failed', `machine ${spec.id} could not start: ${words}`)
  }

  recover(id: string): Promise<'running' | ExitRecord | undefined> {
    return this.#locks.run(id, async () => {
      if (this.#runs(id)) return 'running'
      const end = await this.#settle(id)
      if (end) return end
      await this.#clear(id) // A start that was cut short.
      discard(this.#folders, this.#folder(id).dir)
      return undefined
    })
  }

  async exited(id: string): Promise<ExitRecord> {
    const end = readEnd(this.#folder(id))
    if (end) return end
    if (!readRecord(this.#folder(id))) {
      throw new Fault('not_found', `no machine ${id} was started on this host`)
    }
    return this.#watch.wait(id)
  }

  /** Whether the machine is up: supervisor and process live, and the command was let go. */
  #runs(id: string): boolean {
    const at = this.#folder(id)
    const record = readRecord(at)
    if (!record?.conmon || !record.container || record.bootId !== bootId) return false
    if (existsSync(at.endFile) || existsSync(at.exitFile) || !isAlive(record.conmon)) return false
    if (isAlive(record.container)) {
      this.#goneSince.delete(id)
      return record.started || this.#isInit(record.container.pid)
    }
    const since = this.#goneSince.get(id) ?? systemClock.now()
    this.#goneSince.set(id, since)
    return systemClock.now() - since < lastWriteMs
  }

  /** After a crash between the runtime's start and our record of it, the process itself tells. */
  #isInit(pid: number): boolean {
    try {
      return readFileSync(`/proc/${pid}/cmdline`, 'utf8').startsWith(`${initPath}\0`)
    } catch {
      return false
    }
  }

  /** The end of a machine that does not run, written down once; undefined when it never started or runs. */
  async #settle(id: string): Promise<ExitRecord | undefined> {
    const at = this.#folder(id)
    const known = readEnd(at)
    if (known) return known
    const record = readRecord(at)
    if (!record || this.#runs(id)) return undefined
    const code = readExitCode(at)
    if (!record.started && code === undefined) return undefined
    const end = this.#endOf(at, record, code)
    writeEnd(at, end)
    void this.#locks
      .run(id, async () => this.#release(id))
      .catch((error: unknown) => this.#log.warn({ id, error: messageOf(error) }, 'cannot clean up'))
    return end
  }

  #endOf(at: MachineFolder, record: MachineRecord, code: number | undefined): ExitRecord {
    const now = systemClock.now()
    const killed = { exitCode: 137, signal: 9, oomKilled: false, at: now }
    if (code === undefined) {
      const error =
        record.bootId === bootId
          ? 'the supervisor of the machine (conmon) was killed'
          : 'the host was restarted'
      return { ...killed, error }
    }
    const oom = oomKills(this.#cgroups, this.#cgroupPath(record.id)) > 0
    const oomKilled = (oom || existsSync(join(at.persist, 'oom'))) && code !== 0
    const signal = code > 128 && code <= 192 ? code - 128 : undefined
    return { exitCode: code, oomKilled, at: now, ...(signal === undefined ? {} : { signal }) }
  }

  /** Gives back what an ended machine held; its records stay. Does nothing to a machine that was started again. */
  async #release(id: string): Promise<void> {
    if (existsSync(this.#folder(id).endFile)) await this.#clear(id)
  }

  /** Kills what runs and removes mounts, cgroup and the runtime's state, whatever step was reached. */
  async #clear(id: string): Promise<void> {
    const at = this.#folder(id)
    const record = readRecord(at)
    if (!record && !existsSync(at.dir)) return
    const thisBoot = record?.bootId === bootId
    // conmon first: once it is gone nobody creates or reports anything any more.
    if (thisBoot && record?.conmon) signalProcess(record.conmon, 'SIGKILL')
    if (!record?.started) await this.#killStarters(at)
    if (!(await removeCgroup(this.#cgroups, this.#cgroupPath(id)))) {
      throw new Fault('native_failed', `the processes of machine ${id} do not die`)
    }
    if (thisBoot && record?.container) signalProcess(record.container, 'SIGKILL')
    await unmount(at.root)
    removeState(this.#folders, id)
    for (const path of [at.upper, at.work, at.bundle, at.exitFile]) discard(this.#folders, path)
    this.#goneSince.delete(id)
  }

  /** A start that was cut short may have left a conmon that was not written down yet, or a runtime still at work. */
  async #killStarters(at: MachineFolder): Promise<void> {
    for (let round = 0; round < 100; round++) {
      const starters = processesNaming(at.bundle)
      if (starters.length === 0) return
      for (const pid of starters) {
        const startTime = processStartTime(pid)
        if (startTime !== undefined) signalProcess({ pid, startTime }, 'SIGKILL')
      }
      await systemClock.sleep(5)
    }
  }

  async signal(id: string, signal: NodeJS.Signals): Promise<boolean> {
    if (!this.#runs(id)) return false
    const container = readRecord(this.#folder(id))?.container
    if (!container) return false
    // A signal in PID 1's first moments, before it waits for signals, would be lost.
    for (let i = 0; i < 50 && isAlive(container) && !takesSignals(container.pid); i++) {
      await systemClock.sleep(2)
    }
    const sent = signalProcess(container, signal)
    if (isFrozen(this.#cgroups, this.#cgroupPath(id))) await this.resume(id)
    return sent
  }

  async exec(id: string, request: ExecRequest): Promise<ExecResult> {
    const at = this.#folder(id)
    const record = this.#runs(id) ? readRecord(at) : undefined
    if (!record?.container) throw new Fault('precondition_failed', `machine ${id} is not running`)
    if (isFrozen(this.#cgroups, this.#cgroupPath(id))) {
      throw new Fault('precondition_failed', `machine ${id} is suspended; resume it first`)
    }
    const config = JSON.parse(readFileSync(join(at.bundle, 'config.json'), 'utf8')) as {
      process: { env: string[]; cwd: string }
    }
    const env: Record<string, string> = {
      ...parseEnv(config.process.env),
      HOME: '/root',
      ...request.env,
    }
    const program = request.argv[0] ?? ''
    const tree = { root: `/proc/${record.container.pid}/root`, mounts: [] }
    const workdir = config.process.cwd
    if (!hasProgram(tree, program, { path: env['PATH'] ?? '', workdir })) {
      const stderr = `"${program}" was not found in the machine, or cannot be executed\n`
      return { exitCode: 127, signal: 0, stdout: '', stderr, timedOut: false }
    }
    const user = { uid: 0, gid: 0, additionalGids: [] }
    return execInContainer({
      id,
      runtime: record.runtime,
      stateDir: this.#folders.state,
      dir: at.bundle,
      request,
      process: ociProcess({ argv: request.argv, env, user, workdir, tty: false }),
      processes: () => processesOf(this.#cgroups, this.#cgroupPath(id)),
    })
  }

  async ps(id: string) {
    if (!this.#runs(id)) return []
    return describeProcesses(processesOf(this.#cgroups, this.#cgroupPath(id)))
  }

  suspend(id: string): Promise<void> {
    return this.#freeze(id, true)
  }

  resume(id: string): Promise<void> {
    return this.#freeze(id, false)
  }

  async #freeze(id: string, frozen: boolean): Promise<void> {
    if (!this.#runs(id)) throw new Fault('precondition_failed', `machine ${id} is not running`)
    if (await setFrozen(this.#cgroups, this.#cgroupPath(id), frozen)) return
    const verb = frozen ? 'suspended' : 'resumed'
    if (frozen) await setFrozen(this.#cgroups, this.#cgroupPath(id), false)
    throw new Fault(
      'native_failed',
      `machine ${id} could not be ${verb}: the kernel did not answer`,
    )
  }

  async stats(id: string) {
    const record = this.#runs(id) ? readRecord(this.#folder(id)) : undefined
    const path = this.#cgroupPath(id)
    const use = record && useOf(this.#cgroups, path)
    if (!use) return undefined
    const processes = processesOf(this.#cgroups, path).length
    return { ...use, memoryMaxBytes: record.memoryMb * 1024 * 1024, processes }
  }

  async destroy(id: string): Promise<void> {
    await this.#locks.run(id, async () => {
      const killed = this.#runs(id)
      await this.#clear(id)
      const at = this.#folder(id)
      const end = readEnd(at) ?? {
        exitCode: 137,
        signal: 9,
        oomKilled: false,
        at: systemClock.now(),
      }
      discard(this.#folders, at.dir)
      this.#watch.tell(id, killed ? { ...end, error: 'the machine was destroyed' } : end)
    })
    await this.#locks.run(imageLock, async () => {
      const records = await this.list()
      const images = records.map((other) => readRecord(this.#folder(other))?.squashfsPath)
      const named = images.flatMap((path) => (path ? [imageMountPath(this.#folders, path)] : []))
      await unmountUnusedImages(this.#folders, new Set(named))
      if (records.length === 0 && this.#starting === 0) {
        removeEmptyCgroups(this.#cgroups, this.#cgroupParent)
      }
    })
  }

  async list(): Promise<string[]> {
    return readdirSync(this.#folders.machines)
  }

  #folder(id: string): MachineFolder {
    return machineFolder(this.#folders, id)
  }

  #cgroupPath(id: string): string {
    return `${this.#cgroupParent}/${id}`
  }
}

function parseEnv(lines: string[]): Record<string, string> {
  return Object.fromEntries(
    lines.map((line) => {
      const at = line.indexOf('=')
      return [line.slice(0, at), line.slice(at + 1)]
    }),
  )
}
