import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { systemClock } from '#core/clock.ts'
import { Fault, messageOf } from '#core/fault.ts'
import type { Logger } from '#sys/log.ts'
import { isAlive, signalProcess } from '#sys/process.ts'
import { ociProcess } from './bundle.ts'
import { isFrozen, removeEmptyCgroups, setFrozen, useOf } from './cgroup.ts'
import { clearContainer } from './container-clear.ts'
import { execInContainer } from './container-exec.ts'
import { ContainerPlace } from './container-place.ts'
import { chooseRuntime, type RuntimeChoice } from './container-probe.ts'
import { startContainer } from './container-start.ts'
import type { Driver, ExecRequest, ExecResult, ExitRecord, StartSpec } from './driver.ts'
import { ExitWatch } from './exit-watch.ts'
import { IdLocks } from './id-locks.ts'
import { discard, emptyTrash, readEnd, readRecord, writeEnd } from './machine-folder.ts'
import { imageMountPath, mountImage, unmountUnusedImages } from './mounts.ts'
import { describeProcesses, takesSignals } from './processes.ts'
import { hasProgram } from './tree-files.ts'

export interface ContainerDriverOptions {
  /** Records, overlays and mounts of this host's machines. */
  dir: string
  /** Names the cgroup parent: two hosts on one kernel do not meet. */
  hostId: string
  /** Images that stay mounted while no machine runs them, by their squashfs: those of machines that may start again. */
  keepImages?: () => readonly string[]
  log: Logger
}

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
  readonly capabilities = {
    suspend: 'freeze',
    exec: true,
    isolation: 'container',
    volumes: 'folder',
  } as const
  readonly #log: Logger
  readonly #place: ContainerPlace
  readonly #locks = new IdLocks()
  readonly #watch: ExitWatch
  readonly #keepImages: () => readonly string[]
  #choice: Promise<RuntimeChoice> | undefined
  #starting = 0

  constructor(options: ContainerDriverOptions) {
    this.#log = options.log
    this.#keepImages = options.keepImages ?? (() => [])
    this.#place = new ContainerPlace(options)
    emptyTrash(this.#place.folders)
    this.#watch = new ExitWatch({
      exitsDir: this.#place.folders.exits,
      mayHaveEnded: (id) => !this.#place.running(id),
      settle: (id) => this.#locks.run(id, () => this.#settle(id)),
      onError: (id, error) => this.#log.error({ id, error: messageOf(error) }, 'cannot settle'),
    })
  }

  async probe() {
    const choice = await this.#chooseRuntime()
    return { ok: choice.runtime !== undefined, note: choice.note }
  }

  #chooseRuntime(): Promise<RuntimeChoice> {
    const { cgroups, cgroupParent } = this.#place
    this.#choice ??= chooseRuntime({ cgroups, cgroupParent })
    return this.#choice
  }

  async start(spec: StartSpec, netReady: Promise<unknown> = Promise.resolve()): Promise<void> {
    const { runtime, note } = await this.#chooseRuntime()
    if (!runtime) throw new Fault('native_failed', note)
    await this.#locks.run(spec.id, async () => {
      this.#starting++
      try {
        await clearContainer(this.#place, spec.id)
        const stepsMs = await startContainer({
          place: this.#place,
          spec,
          runtime,
          mountImage: () =>
            this.#locks.run(imageLock, () => mountImage(this.#place.folders, spec.squashfsPath)),
          netReady,
          onGone: () => this.#watch.look(spec.id),
        })
        this.#log.debug({ id: spec.id, stepsMs }, 'container started')
      } catch (error) {
        await this.#forget(spec.id)
        throw error
      } finally {
        this.#starting--
      }
    })
  }

  async #forget(id: string): Promise<void> {
    await clearContainer(this.#place, id)
    discard(this.#place.folders, this.#place.folder(id).dir)
  }

  recover(id: string): Promise<'running' | ExitRecord | undefined> {
    return this.#locks.run(id, async () => {
      if (this.#place.running(id)) return 'running'
      const end = await this.#settle(id)
      if (end) return end
      await this.#forget(id) // A start that was cut short.
      return undefined
    })
  }

  async exited(id: string): Promise<ExitRecord> {
    const at = this.#place.folder(id)
    const end = readEnd(at)
    if (end) return end
    if (!readRecord(at)) throw new Fault('not_found', `no machine ${id} was started on this host`)
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
    void this.#locks
      .run(id, () => this.#release(id))
      .catch((error: unknown) => this.#log.warn({ id, error: messageOf(error) }, 'cannot clean up'))
    return end
  }

  /** Gives back what an ended machine held; its records stay. Does nothing to a machine that was started again. */
  async #release(id: string): Promise<void> {
    if (existsSync(this.#place.folder(id).endFile)) await clearContainer(this.#place, id)
  }

  async signal(id: string, signal: NodeJS.Signals): Promise<boolean> {
    const container = this.#place.running(id)?.container
    if (!container) return false
    // A signal in PID 1's first moments, before it waits for signals, would be lost.
    for (let i = 0; i < 50 && isAlive(container) && !takesSignals(container.pid); i++) {
      await systemClock.sleep(2)
    }
    const sent = signalProcess(container, signal)
    if (this.#isFrozen(id)) await this.resume(id)
    return sent
  }

  async exec(id: string, request: ExecRequest): Promise<ExecResult> {
    const at = this.#place.folder(id)
    const record = this.#place.running(id)
    if (!record?.container) throw new Fault('precondition_failed', `machine ${id} is not running`)
    if (this.#isFrozen(id)) {
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
      stateDir: this.#place.folders.state,
      dir: at.bundle,
      request,
      process: ociProcess({ argv: request.argv, env, user, workdir, tty: false }),
      processes: () => this.#place.processes(id),
    })
  }

  async ps(id: string) {
    return this.#place.running(id) ? describeProcesses(this.#place.processes(id)) : []
  }

  suspend(id: string): Promise<void> {
    return this.#freeze(id, true)
  }

  resume(id: string): Promise<void> {
    return this.#freeze(id, false)
  }

  #isFrozen(id: string): boolean {
    return isFrozen(this.#place.cgroups, this.#place.cgroupPath(id))
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

  async destroy(id: string): Promise<void> {
    await this.#locks.run(id, async () => {
      const killed = this.#place.running(id)
      const now = systemClock.now()
      const error = killed ? { error: 'the machine was destroyed' } : {}
      const end = readEnd(this.#place.folder(id))
      await this.#forget(id)
      this.#watch.tell(id, end ?? { exitCode: 137, signal: 9, oomKilled: false, at: now, ...error })
    })
    await this.releaseImages()
  }

  releaseImages(): Promise<void> {
    return this.#locks.run(imageLock, () => this.#removeUnused())
  }

  /** Unmounts the images that no machine names and none will want; with the last machine go the cgroups of the host. */
  async #removeUnused(): Promise<void> {
    const { folders, cgroups, cgroupParent } = this.#place
    const ids = await this.list()
    const images = ids.map((id) => readRecord(this.#place.folder(id))?.squashfsPath)
    const wanted = [...images, ...this.#keepImages()]
    const named = wanted.flatMap((path) => (path ? [imageMountPath(folders, path)] : []))
    if (this.#starting > 0) return // A start may have mounted an image and not yet used it.
    await unmountUnusedImages(folders, new Set(named))
    if (ids.length === 0) removeEmptyCgroups(cgroups, cgroupParent)
  }

  async list(): Promise<string[]> {
    return readdirSync(this.#place.folders.machines)
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
