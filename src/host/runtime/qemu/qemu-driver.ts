import { stat } from 'node:fs/promises'
import { cpus, constants } from 'node:os'
import { systemClock } from '#core/clock.ts'
import { deadline, unlessAborted, within } from '#sys/abort.ts'
import { Fault, isFault, messageOf } from '#core/fault.ts'
import { limits } from '#core/limits.ts'
import { explainDiskFull } from '#sys/disk-full.ts'
import type { Logger } from '#sys/log.ts'
import { signalProcess } from '#sys/process.ts'
import { removeUnusedParent } from '#sys/cgroup.ts'
import type {
  DiskUsage,
  Driver,
  ExecRequest,
  ExecResult,
  ExitRecord,
  MachineStats,
  OnApi,
  Program,
  ProgramRequest,
  StartSpec,
} from '../driver.ts'
import { ExitWatch } from '../exit-watch.ts'
import { Finding } from '../finding.ts'
import { execInGuest, openInGuest } from '../guest-program.ts'
import { IdLocks } from '../id-locks.ts'
import { discard, emptyTrash, forget, readEnd, writeEnd } from '../machine-folder.ts'
import { DiskWatch, type MachineNews } from './disk-watch.ts'
import type { Accel } from './qemu-args.ts'
import { probeVm } from './qemu-probe.ts'
import { Qmp } from './qmp.ts'
import { StartSlots } from './start-slots.ts'
import { clearVm, killVmm } from './vm-clear.ts'
import { flushGuest } from './vm-flush.ts'
import { writeGuestExit, writeVmRecord, type VmRecord } from './vm-folder.ts'
import { socketPath } from './vm-launch.ts'
import { spoofedFrames } from './vm-network.ts'
import { VmPlace } from './vm-place.ts'
import { ReadyVmms } from './vm-ready.ts'
import { makeReady, resumeVm } from './vm-resume.ts'
import { VmSessions } from './vm-sessions.ts'
import { goOn, snapshotFlaw } from './vm-snapshot.ts'
import { startVm, type VmMakers } from './vm-start.ts'
import { suspendVm } from './vm-suspend.ts'
import { statsOf, usageOf } from './vm-use.ts'

export interface QemuDriverOptions {
  /** Records, disks and snapshots of this host's VMs. */
  dir: string
  /** Names the cgroup parent, and the range of users: two hosts on one kernel do not meet. */
  hostId: string
  /** The guests' kernel, shared by hosts. */
  kernelCacheDir: string
  /** Only this is tried; default: KVM, and TCG where no guest boots with it. */
  accel?: Accel
  /** PID 1; default: the one that set-up built. */
  initPath?: string
  /** How many boot at the same time; the others wait. */
  startsAtOnceMax?: number
  /** Until a guest has answered; default: what is long enough on a busy host. */
  bootTimeoutMs?: number
  /** So many suspended machines, those that went last, have all made but QEMU for their resume: a shell each that waits. */
  readyMax?: number
  onApi?: OnApi
  /** For the log of a machine, from time to time. */
  onNews?: (id: string, news: MachineNews) => void
  log: Logger
}

/** About 0.3 MB each. */
const readyMaxDefault = 64
const controlTimeoutMs = 5_000
const statsTimeoutMs = 2_000
/** A VM that is to be killed is asked no longer than this whether it can pass that on. */
const killTimeoutMs = 1_000
/** Longer than a guest may take to write out its volumes, and a copy of a disk. */
const stillTimeoutMs = limits.volumeSyncMsMax + limits.volumeFreezeMsMax + 10_000

/**
 * Machines as VMs: QEMU's smallest machine, with Debian's kernel and our PID 1. What a machine is doing is read from the
 * kernel and from files each time; the only thing in our memory is the talk with its guest, which can be begun anew.
 */
export function openQemuDriver(options: QemuDriverOptions): Driver {
  return new QemuDriver(options)
}

const killedNow = (): ExitRecord => ({
  exitCode: 137,
  signal: 9,
  oomKilled: false,
  at: systemClock.now(),
})

class QemuDriver implements Driver {
  readonly name = 'qemu'
  readonly capabilities = {
    suspend: 'snapshot',
    exec: true,
    isolation: 'vm',
    volumes: 'disk',
    rootSize: true,
  } as const
  readonly #options: QemuDriverOptions
  readonly #log: Logger
  readonly #place: VmPlace
  readonly #sessions: VmSessions
  readonly #makers: Finding<VmMakers>
  readonly #locks = new IdLocks()
  readonly #ready = new ReadyVmms()
  readonly #watch: ExitWatch
  readonly #diskWatch: DiskWatch
  #slots: StartSlots | undefined
  #closed = false

  constructor(options: QemuDriverOptions) {
    this.#options = options
    this.#log = options.log
    this.#place = new VmPlace(options)
    this.#makers = new Finding(() => probeVm(options))
    this.#sessions = new VmSessions(this.#place, {
      log: options.log,
      onOver: (id) => this.#watch.look(id),
      onApi: options.onApi,
    })
    this.#diskWatch = new DiskWatch({
      sessions: this.#sessions,
      log: options.log,
      ask: (id, work) => this.#askSilent(id, work),
      onNews: (id, news) => options.onNews?.(id, news),
    })
    emptyTrash(this.#place.folders)
    this.#watch = new ExitWatch({
      mayHaveEnded: (id) => !['running', 'suspended'].includes(this.#place.state(id)),
      settle: (id) => this.#locks.run(id, () => this.#settle(id)),
      onError: (id, error) => this.#log.error({ id, error: messageOf(error) }, 'cannot settle'),
    })
  }

  async probe() {
    const { found, note } = await this.#makers.again()
    return { ok: found !== undefined, note, ...(found ? { accel: found.accel } : {}) }
  }

  async start(spec: StartSpec, netReady: Promise<unknown> = Promise.resolve()): Promise<void> {
    const makers = await this.#makers.need()
    const most = this.#options.startsAtOnceMax ?? cpus().length * (makers.accel === 'kvm' ? 4 : 1)
    this.#slots ??= new StartSlots(most)
    const slots = this.#slots
    await this.#locks.run(spec.id, async () => {
      try {
        await this.#clear(spec.id, { keepRoot: spec.keepRoot === true })
        const inTurn = <T>(work: () => Promise<T>) => slots.run(work)
        const stepsMs = await startVm({ ...this.#means(spec.id), spec, makers, netReady, inTurn })
        this.#log.debug({ id: spec.id, stepsMs }, 'VM started')
      } catch (error) {
        // A root that was to be kept is there for the next try.
        await this.#forget(spec.id, { keepRoot: spec.keepRoot === true })
        throw explainDiskFull(error)
      } finally {
        this.#place.releaseUid(spec.id)
      }
    })
  }

  get #parts() {
    return { place: this.#place, sessions: this.#sessions }
  }

  #means(id: string) {
    return {
      ...this.#parts,
      ready: this.#ready,
      onGone: () => this.#watch.look(id),
      bootTimeoutMs: this.#options.bootTimeoutMs,
    }
  }

  async #clear(id: string, options: { keepRoot: boolean }): Promise<void> {
    await this.#sessions.close(id)
    await clearVm(this.#place, id, options)
  }

  async #forget(id: string, options: { keepRoot: boolean }): Promise<void> {
    await this.#clear(id, options)
    forget(this.#place.folders, this.#place.folder(id), options)
  }

  recover(id: string): Promise<'running' | ExitRecord | undefined> {
    return this.#locks.run(id, async () => {
      const state = this.#place.state(id)
      if (state === 'suspended') return this.#recoverSuspended(id)
      if (state === 'running') {
        await this.#adopt(id)
        return 'running'
      }
      const end = await this.#settle(id)
      if (end) return end
      // A start that was cut short, or a VMM whose record is lost. What the machine wrote before is for its next start to
      // keep or not.
      await this.#clear(id, { keepRoot: true })
      return undefined
    })
  }

  /** Begins the talk with a VM that nobody speaks with; one that stood still for a snapshot that came to nothing goes on. */
  async #adopt(id: string): Promise<void> {
    const record = this.#place.record(id)
    if (!record || this.#sessions.has(id)) return
    await this.#sessions.open(id)
    discard(this.#place.folders, this.#place.folder(id).unfinished)
    await this.#control(record, goOn).catch((error: unknown) =>
      this.#log.warn({ id, error: messageOf(error) }, 'a VM cannot be asked how it is'),
    )
    // Also one that goes on, as of a resume or a copy of its disk that was cut short before the guest was told.
    this.#tellTime(id)
  }

  /** Nobody waits for a guest that is busy, or deaf. */
  #tellTime(id: string): void {
    const tell = async () => (await this.#sessions.open(id))?.tellTime(controlTimeoutMs)
    tell().catch((error: unknown) =>
      this.#log.debug({ id, error: messageOf(error) }, 'a guest has not taken the time'),
    )
  }

  async #recoverSuspended(id: string): Promise<'running' | undefined> {
    const record = this.#place.record(id)
    // Without knowing what would resume it nothing can be said of a snapshot, and none is lost.
    const makers = await this.#makers.need()
    if (record) {
      await killVmm(this.#place, record.id, record) // Its snapshot was complete, or its resume was not.
      const flaw = snapshotFlaw(this.#place.folder(id), record, makers.text)
      if (!flaw) return 'running'
      this.#log.warn({ id, flaw }, 'a snapshot is discarded')
    }
    await this.#loseSnapshot(id)
    return undefined
  }

  /** What is left is a disk for a start with `keepRoot`. */
  async #loseSnapshot(id: string): Promise<void> {
    const at = this.#place.folder(id)
    const record = this.#place.record(id)
    if (record) writeVmRecord(at, { ...record, started: false })
    await this.#clear(id, { keepRoot: true })
  }

  async exited(id: string): Promise<ExitRecord> {
    const end = readEnd(this.#place.folder(id))
    if (end) return end
    if (!this.#place.record(id)) {
      throw new Fault('not_found', `no machine ${id} was started on this host`)
    }
    if (this.#place.state(id) === 'running' && !this.#sessions.has(id)) await this.recover(id)
    return this.#watch.wait(id)
  }

  /** The end of a machine that is over, written down once; undefined when it never started or runs. */
  async #settle(id: string): Promise<ExitRecord | undefined> {
    const at = this.#place.folder(id)
    const known = readEnd(at)
    if (known) return known
    const record = this.#place.record(id)
    if (!record || this.#place.state(id) !== 'over') return undefined
    const end = this.#place.endOf(record, await this.#sessions.consoleWords(id))
    // Its disks are flushed and its end is kept: nothing of it is waited for.
    await killVmm(this.#place, record.id, record)
    await this.#sessions.close(id)
    writeEnd(at, end)
    void this.#locks
      .run(id, () => this.#release(id))
      .catch((error: unknown) => this.#log.warn({ id, error: messageOf(error) }, 'cannot clean up'))
    return end
  }

  /** Gives back what an ended machine held; its records stay. Does nothing to a machine that was started again. */
  async #release(id: string): Promise<void> {
    if (this.#place.state(id) === 'ended') await this.#clear(id, { keepRoot: true })
  }

  async signal(id: string, signal: NodeJS.Signals): Promise<boolean> {
    const state = this.#place.state(id)
    if (state === 'suspended') {
      if (signal === 'SIGKILL') return this.#endSuspended(id)
      await this.resume(id)
    } else if (state !== 'running') return false
    try {
      const waitMs = signal === 'SIGKILL' ? killTimeoutMs : controlTimeoutMs
      const { guest } = await this.#sessions.connected(id, waitMs)
      const passed = guest.signal(constants.signals[signal])
      if (signal !== 'SIGKILL' || (await guest.answers(killTimeoutMs))) return passed
      throw new Fault('timeout', `machine ${id} is deaf`)
    } catch (error) {
      // A guest that does not listen any more is ended as its owner wants it.
      const record = this.#place.record(id)
      if (signal === 'SIGKILL' && record && this.#place.state(id) === 'running') {
        // Written before it comes: nobody shall take the end that was wanted for an accident of the monitor.
        writeGuestExit(this.#place.folder(id), killedNow())
        await killVmm(this.#place, record.id, record)
        return true
      }
      if (isFault(error, 'precondition_failed')) return false
      throw error
    }
  }

  #endSuspended(id: string): Promise<boolean> {
    return this.#locks.run(id, async () => {
      if (this.#place.state(id) !== 'suspended') return false
      const end = killedNow()
      writeEnd(this.#place.folder(id), end)
      await this.#clear(id, { keepRoot: true })
      this.#watch.tell(id, end)
      return true
    })
  }

  async exec(id: string, request: ExecRequest): Promise<ExecResult> {
    return execInGuest((await this.#sessions.connected(id, controlTimeoutMs)).guest, request)
  }

  async openProgram(id: string, request: ProgramRequest): Promise<Program> {
    return openInGuest((await this.#sessions.connected(id, controlTimeoutMs)).guest, request)
  }

  async ps(id: string) {
    if (this.#place.state(id) !== 'running') return []
    const listed = await (await this.#sessions.connected(id, controlTimeoutMs)).guest.ps()
    // The kernel's own threads have no command line, and no memory.
    return listed.filter(({ command, rss }) => command !== '' || rss > 0)
  }

  stats(id: string): Promise<MachineStats | undefined> {
    return statsOf(this.#parts, id)
  }

  async #control<T>(record: VmRecord, work: (qmp: Qmp) => Promise<T>): Promise<T> {
    const qmp = await Qmp.open(socketPath(record.vmm?.pid ?? 0, 'qmp'), controlTimeoutMs)
    try {
      return await work(qmp)
    } finally {
      qmp.close()
    }
  }

  /** Between the verbs of a machine; a destruction does not wait for it. */
  #askSilent(id: string, work: (qmp: Qmp) => Promise<void>): Promise<void> {
    return this.#locks.breakable(id, undefined, async (broken) => {
      const record = this.#place.record(id)
      if (!record || this.#place.state(id) !== 'running') return
      const reason = () => new Fault('timeout', `the monitor of machine ${id} is deaf`)
      const most = { ms: statsTimeoutMs, reason, others: [broken] }
      await within(most, () => this.#control(record, work))
    })
  }

  async spoofed(id: string): Promise<number> {
    const record = this.#place.record(id)
    if (!record?.hasNic || this.#place.state(id) !== 'running') return 0
    return spoofedFrames(record.netnsPath)
  }

  #running(id: string): VmRecord {
    const record = this.#place.record(id)
    if (record && this.#place.state(id) === 'running') return record
    throw new Fault('precondition_failed', `machine ${id} is not running`)
  }

  suspend(id: string, given?: AbortSignal): Promise<void> {
    return this.#locks
      .breakable(id, given, async (signal) => {
        if (this.#place.state(id) === 'suspended') return
        const record = this.#running(id)
        const begun = performance.now()
        await suspendVm({ ...this.#parts, record, signal, log: this.#log })
        const ms = Math.round(performance.now() - begun)
        this.#log.debug({ id, ms }, 'VM suspended')
      })
      .then(() => this.#makeReady(id))
  }

  /** Behind a suspend, which does not wait for it. What cannot be made now is made by the resume. */
  #makeReady(id: string): void {
    const make = async () => {
      const record = this.#place.record(id)
      if (this.#closed || !record || this.#place.state(id) !== 'suspended') return
      const makers = await this.#makers.need()
      await makeReady({ place: this.#place, makers, ready: this.#ready }, record)
      for (const other of this.#ready.beyond(this.#options.readyMax ?? readyMaxDefault)) {
        void this.#locks.run(other, () => this.#letGo(other)).catch(failed)
      }
    }
    const failed = (error: unknown) =>
      this.#log.debug({ id, error: messageOf(error) }, 'a resume is not prepared')
    this.#locks.run(id, make).catch(failed)
  }

  async #letGo(id: string): Promise<void> {
    if (this.#ready.take(id)) await killVmm(this.#place, id, this.#place.record(id))
  }

  resume(id: string, netReady: Promise<unknown> = Promise.resolve()): Promise<void> {
    netReady.catch(() => {}) // Waited for in its turn.
    return this.#locks.run(id, async () => {
      const record = this.#place.record(id)
      if (!record || this.#place.state(id) !== 'suspended') {
        this.#running(id) // It goes on already, as after a resume that was told to nobody.
        return
      }
      const makers = await this.#makers.need()
      try {
        const stepsMs = await resumeVm({ ...this.#means(id), record, makers, netReady })
        this.#log.debug({ id, stepsMs }, 'VM resumed')
      } catch (error) {
        if (this.#place.state(id) === 'suspended') {
          await this.#sessions.close(id)
          await killVmm(this.#place, record.id, record)
        } else await this.#loseSnapshot(id)
        throw error
      }
    })
  }

  async still<T>(id: string, action: () => Promise<T>): Promise<T> {
    return this.#locks.breakable(id, undefined, async (broken) => {
      const late = () => new Fault('timeout', `machine ${id} stood still for too long and goes on`)
      const { signal, clear } = deadline(stillTimeoutMs, late, [broken])
      try {
        if (this.#place.state(id) !== 'running') return await unlessAborted(signal, action())
        return await this.#control(this.#running(id), async (qmp) => {
          const paths = this.#running(id).volumes.map(({ path }) => path)
          await unlessAborted(signal, flushGuest(this.#sessions, { id, paths, log: this.#log }))
          try {
            await unlessAborted(signal, qmp.execute('stop'))
            return await unlessAborted(signal, action())
          } finally {
            // Also behind a stop whose answer came too late: QEMU does one after the other.
            await qmp.execute('cont')
            this.#tellTime(id)
          }
        })
      } finally {
        clear()
      }
    })
  }

  usage(id: string, source: string): Promise<DiskUsage | undefined> {
    return usageOf(this.#parts, id, source).catch((error: unknown) => {
      const words = 'a guest does not say how full its volume is'
      this.#log.debug({ id, error: messageOf(error) }, words)
      return undefined
    })
  }

  async grow(id: string, source: string): Promise<boolean> {
    if (this.#place.state(id) !== 'running') return false
    const record = this.#running(id)
    const index = record.volumes.findIndex((volume) => volume.source === source)
    const volume = record.volumes[index]
    if (!volume) return false
    const { size } = await stat(source)
    await this.#control(record, (qmp) =>
      qmp.execute('block_resize', { 'node-name': `volume${index}`, size }),
    )
    await (await this.#sessions.connected(id, controlTimeoutMs)).guest.grow(volume.path, size)
    return true
  }

  async destroy(id: string, { keepRoot = false } = {}): Promise<void> {
    const killed = ['running', 'suspended'].includes(this.#place.state(id))
    this.#endNow(id, new Fault('conflict', `machine ${id} is being destroyed`))
    await this.#locks.run(id, async () => {
      const error = killed ? { error: 'the machine was destroyed' } : {}
      const end = readEnd(this.#place.folder(id))
      await this.#forget(id, { keepRoot })
      this.#watch.tell(id, end ?? { ...killedNow(), ...error })
    })
    this.#removeUnusedParent()
  }

  /** Kills the VMM, whatever verb is under way with it: that verb fails. */
  #endNow(id: string, why: Fault): void {
    const record = this.#place.record(id)
    this.#locks.break(id, why)
    if (record?.vmm && this.#place.vmmLives(record)) signalProcess(record.vmm, 'SIGKILL')
  }

  /** No image is held: each VM opens its own. */
  async releaseUnused(): Promise<void> {
    const suspended = this.#place.ids().filter((id) => this.#place.state(id) === 'suspended')
    await Promise.all(suspended.map((id) => this.#locks.run(id, () => this.#letGo(id))))
    this.#removeUnusedParent()
  }

  #removeUnusedParent(): void {
    removeUnusedParent(this.#place.cgroups, this.#place.cgroupParent)
  }

  close(): void {
    this.#closed = true
    this.#ready.closeAll()
    this.#diskWatch.close()
    this.#sessions.closeAll()
  }

  async list(): Promise<string[]> {
    return this.#place.ids()
  }
}
