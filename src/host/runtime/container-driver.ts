import { existsSync } from 'node:fs'
import { constants as osConstants } from 'node:os'
import { systemClock } from '#core/clock.ts'
import { Fault, messageOf } from '#core/fault.ts'
import type { Guest } from '#host/guest/index.ts'
import { explainDiskFull } from '#sys/disk-full.ts'
import type { Logger } from '#sys/log.ts'
import { killAll, removeUnusedParent, setFrozen, useOf } from '#sys/cgroup.ts'
import { clearContainer } from './container-clear.ts'
import { ContainerPlace } from './container-place.ts'
import { chooseRuntime } from './container-probe.ts'
import { startContainer } from './container-start.ts'
import type {
  Driver,
  ExecRequest,
  ExecResult,
  ExitRecord,
  OnApi,
  Program,
  ProgramRequest,
  StartSpec,
} from './driver.ts'
import { ExitWatch } from './exit-watch.ts'
import { Finding } from './finding.ts'
import { execInGuest, openInGuest } from './guest-program.ts'
import { dialGuest } from './guest-socket.ts'
import { IdLocks } from './id-locks.ts'
import { MachineChannel } from './machine-channel.ts'
import {
  emptyTrash,
  forget,
  readEnd,
  readRecord,
  writeEnd,
  writeRecord,
  type MachineRecord,
} from './machine-folder.ts'
import { imageMountPath, mountImage, unmountUnusedImages } from './mounts.ts'
import { describeProcesses } from './processes.ts'

export interface ContainerDriverOptions {
  /** Records, overlays and mounts of this host's machines. */
  dir: string
  /** Names the cgroup parent: two hosts on one kernel do not meet. */
  hostId: string
  /** Images that stay mounted while no machine runs them, by their squashfs: those of machines that may start again. */
  keepImages?: () => readonly string[]
  onApi?: OnApi
  log: Logger
}

const imageLock = '/images'
const connectTimeoutMs = 5_000
/** PID 1 answers within moments, unless it hangs. */
const signalWaitMs = 1_000
const hangUpTimeoutMs = 1_000
/** A unix socket does not lose its other end without a word: a ping finds a PID 1 that hangs, and that can take a while. */
const pingEveryMs = 10_000
const pingDeadlineMs = 30_000

/**
 * Machines as containers: our PID 1 in a container of crun or runc. A weaker wall than a VM: all machines share the host's
 * kernel. What a machine is doing is read from the kernel and from files each time, never from our memory; only PID 1
 * knows its output and its end, and keeps both until we have written them down.
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
  readonly capabilities = {
    suspend: 'freeze',
    exec: true,
    isolation: 'container',
    volumes: 'folder',
    rootSize: false,
  } as const
  readonly #log: Logger
  readonly #place: ContainerPlace
  readonly #runtime: Finding<string>
  readonly #locks = new IdLocks()
  readonly #watch: ExitWatch
  readonly #keepImages: () => readonly string[]
  readonly #onApi: OnApi | undefined
  readonly #channels = new Map<string, Promise<MachineChannel>>()
  #starting = 0
  #closed = false

  constructor(options: ContainerDriverOptions) {
    this.#log = options.log
    this.#keepImages = options.keepImages ?? (() => [])
    this.#onApi = options.onApi
    this.#place = new ContainerPlace(options)
    this.#runtime = new Finding(() => chooseRuntime(this.#place))
    emptyTrash(this.#place.folders)
    this.#watch = new ExitWatch({
      mayHaveEnded: (id) => !this.#place.running(id),
      settle: (id) => this.#locks.run(id, () => this.#settle(id)),
      onError: (id, error) => this.#log.error({ id, error: messageOf(error) }, 'cannot settle'),
    })
  }

  async probe() {
    const { found, note } = await this.#runtime.again()
    return { ok: found !== undefined, note }
  }

  async start(spec: StartSpec, netReady: Promise<unknown> = Promise.resolve()): Promise<void> {
    const runtime = await this.#runtime.need()
    await this.#locks.run(spec.id, async () => {
      this.#starting++
      try {
        await this.#clear(spec.id, { keepRoot: spec.keepRoot === true })
        const stepsMs = await startContainer({
          place: this.#place,
          spec,
          runtime,
          mountImage: () =>
            this.#locks.run(imageLock, () => mountImage(this.#place.folders, spec.squashfsPath)),
          netReady,
          openChannel: (record) => this.#openChannel(record),
        })
        this.#log.debug({ id: spec.id, stepsMs }, 'container started')
      } catch (error) {
        // A root that was to be kept is there for the next try.
        await this.#forget(spec.id, { keepRoot: spec.keepRoot === true })
        throw explainDiskFull(error)
      } finally {
        this.#starting--
      }
    })
  }

  async #clear(id: string, options: { keepRoot: boolean }): Promise<void> {
    this.#letGo(id)
    await clearContainer(this.#place, id, options)
  }

  async #forget(id: string, options: { keepRoot: boolean }): Promise<void> {
    await this.#clear(id, options)
    forget(this.#place.folders, this.#place.folder(id), options)
  }

  recover(id: string): Promise<'running' | ExitRecord | undefined> {
    return this.#locks.run(id, async () => {
      const record = this.#place.holding(id)
      if (record && (await this.#adopt(record))) return 'running'
      const end = await this.#settle(id)
      if (end) return end
      // A start that was cut short, or nothing but a root that is kept.
      const keepRoot = readRecord(this.#place.folder(id))?.lastingRoot ?? true
      await this.#forget(id, { keepRoot })
      return undefined
    })
  }

  /** Takes a machine over that lives. False when its start was cut short before PID 1 had heard of the command. */
  async #adopt(record: MachineRecord): Promise<boolean> {
    const channel = await this.#openChannel(record)
    if (record.started) return true
    const welcome = await channel.guest.connected(connectTimeoutMs).catch(() => undefined)
    if (!welcome || welcome.state === 'waiting') return false
    writeRecord(this.#place.folder(record.id), { ...record, started: true })
    return true
  }

  #openChannel(record: MachineRecord): Promise<MachineChannel> {
    const { id } = record
    const known = this.#channels.get(id)
    if (known) return known
    const at = this.#place.folder(id)
    const opening = MachineChannel.open({
      id,
      dial: () => dialGuest(at.dir),
      padded: false,
      pingEveryMs,
      pingDeadlineMs,
      asleep: () => this.#place.isFrozen(id),
      logFile: record.logFile,
      placeFile: at.placeFile,
      log: this.#log,
      onApi: this.#onApi,
      onExit: ({ exitCode, signal, at: moment }) => {
        const oomKilled = exitCode !== 0 && this.#place.wasOutOfMemory(id)
        const named = signal === undefined ? {} : { signal }
        writeEnd(at, { exitCode, ...named, oomKilled, at: moment })
      },
      onOver: () => this.#over(id),
      onLost: () => this.#watch.look(id),
    })
    this.#channels.set(id, opening)
    opening.catch(() => this.#channels.delete(id))
    return opening
  }

  /** The channel to a machine that runs. */
  async #channel(id: string): Promise<MachineChannel | undefined> {
    const record = this.#place.running(id)
    return record && this.#openChannel(record)
  }

  #letGo(id: string): void {
    const channel = this.#channels.get(id)
    this.#channels.delete(id)
    channel?.then(
      (open) => open.close(),
      () => {},
    )
  }

  close(): void {
    this.#closed = true
    for (const id of this.#channels.keys()) this.#letGo(id)
  }

  #over(id: string): void {
    const end = readEnd(this.#place.folder(id))
    if (end) this.#watch.tell(id, end)
    this.#releaseSoon(id)
  }

  async exited(id: string): Promise<ExitRecord> {
    const at = this.#place.folder(id)
    const end = readEnd(at)
    if (end) return end
    if (!readRecord(at)) throw new Fault('not_found', `no machine ${id} was started on this host`)
    // Two hosts would take the channel from each other: one that let go hears of the end by the files.
    if (!this.#closed) await this.#channel(id)
    return this.#watch.wait(id)
  }

  /** The end of a machine that does not run, written down once; undefined when it never started or runs. */
  async #settle(id: string): Promise<ExitRecord | undefined> {
    const at = this.#place.folder(id)
    const known = readEnd(at)
    if (known) return known
    const record = readRecord(at)
    if (!record || this.#place.running(id)) return undefined
    const end = this.#place.endOf(record)
    if (!end) return undefined
    writeEnd(at, end)
    this.#releaseSoon(id)
    return end
  }

  #releaseSoon(id: string): void {
    this.#locks
      .run(id, () => this.#release(id))
      .catch((error: unknown) => this.#log.warn({ id, error: messageOf(error) }, 'cannot clean up'))
  }

  /** Gives back what an ended machine held; its records stay. Does nothing to a machine that was started again. */
  async #release(id: string): Promise<void> {
    if (existsSync(this.#place.folder(id).endFile)) await this.#clear(id, { keepRoot: true })
  }

  /** A hung PID 1 passes nothing on: SIGKILL reaches the machine all the same, by its control group. */
  async signal(id: string, signal: NodeJS.Signals): Promise<boolean> {
    if (!this.#place.running(id)) return false
    if (this.#place.isFrozen(id)) await this.resume(id)
    const number = osConstants.signals[signal]
    const channel = await this.#channel(id)
    if (!channel) return false
    const there = await channel.guest.connected(signalWaitMs).catch(() => undefined)
    if (there?.state === 'ended') return false
    if (there && channel.guest.signal(number)) return true
    if (signal !== 'SIGKILL' || !this.#place.running(id)) return false
    killAll(this.#place.cgroups, this.#place.cgroupPath(id))
    return true
  }

  async exec(id: string, request: ExecRequest): Promise<ExecResult> {
    return execInGuest(await this.#guest(id), request)
  }

  async openProgram(id: string, request: ProgramRequest): Promise<Program> {
    return openInGuest(await this.#guest(id), request)
  }

  async #guest(id: string): Promise<Guest> {
    const channel = await this.#channel(id)
    if (!channel) throw new Fault('precondition_failed', `machine ${id} is not running`)
    if (this.#place.isFrozen(id)) {
      throw new Fault('precondition_failed', `machine ${id} is suspended; resume it first`)
    }
    await channel.guest.connected(connectTimeoutMs)
    return channel.guest
  }

  async ps(id: string) {
    return this.#place.running(id) ? describeProcesses(this.#place.processes(id)) : []
  }

  async suspend(id: string): Promise<void> {
    if (!this.#place.isFrozen(id)) {
      const channel = await this.#channel(id)
      await channel?.guest.hangUpApi(hangUpTimeoutMs)
    }
    await this.#freeze(id, true)
  }

  resume(id: string): Promise<void> {
    return this.#freeze(id, false)
  }

  async #freeze(id: string, frozen: boolean): Promise<void> {
    if (!this.#place.running(id)) {
      throw new Fault('precondition_failed', `machine ${id} is not running`)
    }
    const { cgroups } = this.#place
    const path = this.#place.cgroupPath(id)
    if (await setFrozen(cgroups, path, frozen)) return
    if (frozen) await setFrozen(cgroups, path, false)
    const verb = frozen ? 'suspended' : 'resumed'
    throw new Fault(
      'native_failed',
      `machine ${id} could not be ${verb}: the kernel did not answer; try again`,
    )
  }

  async stats(id: string) {
    const record = this.#place.running(id)
    const use = record && useOf(this.#place.cgroups, this.#place.cgroupPath(id))
    if (!use) return undefined
    const processes = this.#place.processes(id).length
    return { ...use, memoryMaxBytes: record.memoryMb * 1024 * 1024, processes }
  }

  async destroy(id: string, { keepRoot = false } = {}): Promise<void> {
    await this.#locks.run(id, async () => {
      const killed = this.#place.running(id)
      const now = systemClock.now()
      const error = killed ? { error: 'the machine was destroyed' } : {}
      const end = readEnd(this.#place.folder(id))
      await this.#forget(id, { keepRoot })
      this.#watch.tell(id, end ?? { exitCode: 137, signal: 9, oomKilled: false, at: now, ...error })
    })
    await this.releaseUnused()
  }

  releaseUnused(): Promise<void> {
    return this.#locks.run(imageLock, () => this.#removeUnused())
  }

  /** The images that no machine names and none will want, and the host's control group with its last machine. */
  async #removeUnused(): Promise<void> {
    const { folders, cgroups, cgroupParent } = this.#place
    const ids = await this.list()
    const records = ids.flatMap((id) => readRecord(this.#place.folder(id)) ?? [])
    const wanted = [...records.map((record) => record.squashfsPath), ...this.#keepImages()]
    const named = wanted.map((path) => imageMountPath(folders, path))
    if (this.#starting > 0) return // A start may have mounted an image, or made a group, and not yet used it.
    await unmountUnusedImages(folders, new Set(named))
    removeUnusedParent(cgroups, cgroupParent)
  }

  async list(): Promise<string[]> {
    return this.#place.ids()
  }
}
