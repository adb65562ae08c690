import { existsSync, mkdirSync, readdirSync, rmSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { Fault, messageOf } from '#core/fault.ts'
import { guestKernel, protocolVersion, type GuestKernel } from '#host/guest/index.ts'
import { processStartTime, runOk } from '#sys/process.ts'
import { removeUnusedParent } from '#sys/cgroup.ts'
import type { Found } from '../finding.ts'
import { bootId } from '../machine-folder.ts'
import { whyNoKvm } from './kvm-trial.ts'
import {
  circumstances,
  keepVerdict,
  processorModel,
  readVerdict,
  verdictKey,
  type Verdict,
} from './probe-verdict.ts'
import { architecture, qemuArgs, type Accel } from './qemu-args.ts'
import { clearVm } from './vm-clear.ts'
import { writeVmRecord, type VmRecord } from './vm-folder.ts'
import { readableByVmms } from './vm-launch.ts'
import { VmPlace } from './vm-place.ts'
import { VmSession } from './vm-session.ts'
import { bootFailure, launch, orGone, prepare, type VmMakers } from './vm-start.ts'

export interface ProbeOptions {
  dir: string
  hostId: string
  kernelCacheDir: string
  /** Only this is tried. */
  accel?: Accel
  /** PID 1. */
  initPath?: string
}

/** A busy host must not be taken for one without KVM: that KVM works at all is known sooner (`kvm-trial.ts`). */
const bootTimeoutMs: Record<Accel, number> = { kvm: 30_000, tcg: 60_000 }
const tscKhzGuess = 2_000_000
const probeId = 'probe'
const initBuilt = resolve(import.meta.dirname, '../../../../build/guest/init')
/** Of a guest without a machine nobody wants to hear. */
const quiet = { info() {}, warn() {} }
const slow = 'emulated by QEMU (TCG), several times slower than a processor'

/**
 * What really boots here, KVM before TCG: a device that opens says little. Kept beside the kernel for as long as the
 * host's kernel runs, so that it costs a boot only once. Never throws.
 */
export async function probeVm(options: ProbeOptions): Promise<Found<VmMakers>> {
  try {
    await clearOldProbes(options)
    const version = (await runOk(architecture().program, ['--version'])).split('\n')[0] ?? ''
    const initPath = options.initPath ?? initBuilt
    const { dir, kernelCacheDir } = options
    const kernel = await guestKernel({ cacheDir: kernelCacheDir, initramfsDir: dir, initPath })
    readableByVmms(kernel.elfPath)
    readableByVmms(kernel.initramfsPath)
    return await choose(options, { kernel, version })
  } catch (error) {
    return { note: `no VM can run here: ${messageOf(error)}` }
  }
}

/** PID 1 measures it where it may be run here; a kernel that is told nothing may hang, and does better with a guess. */
async function measureTscKhz({ initPath = initBuilt }: ProbeOptions): Promise<number> {
  const measured = await runOk(initPath, ['--tsc-khz']).catch(() => tscKhzGuess)
  return Number(measured)
}

interface Parts {
  kernel: GuestKernel
  version: string
}

/** With KVM a guest has the processor as it is, and its memory is of no use on another. */
const processorOf = (accel: Accel) => (accel === 'kvm' ? `kvm on ${processorModel()}` : accel)

const makersOf = (
  { kernel, version }: Parts,
  { accel, tscKhz }: Pick<Verdict, 'accel' | 'tscKhz'>,
): VmMakers => ({
  accel,
  kernel,
  tscKhz,
  text: `${version}, kernel ${kernel.release} ${kernel.packageDigest.slice(0, 16)}, ${processorOf(accel)}, guest protocol ${protocolVersion}`,
})

async function choose(options: ProbeOptions, parts: Parts): Promise<Found<VmMakers>> {
  const { kernelCacheDir } = options
  const accels: readonly Accel[] = options.accel ? [options.accel] : ['kvm', 'tcg']
  const tried = accels.map((accel) => ({ accel, args: qemuArgs(probeShape(accel)) }))
  const { version, kernel } = parts
  const key = verdictKey(circumstances({ version, kernelDigest: kernel.digest, tried }))
  const known = readVerdict(kernelCacheDir, key)
  if (known) return { found: makersOf(parts, known), note: known.note }
  const reasons: string[] = []
  for (const accel of accels) {
    try {
      const whyNot = accel === 'kvm' && (await whyNoKvm())
      if (whyNot) throw new Error(whyNot)
      const tscKhz = accel === 'tcg' ? await measureTscKhz(options) : undefined
      const makers = makersOf(parts, { accel, tscKhz })
      const ms = await bootOnce(options, makers)
      const how = accel === 'kvm' ? 'with KVM' : slow
      const because = reasons.length > 0 ? ` (${reasons.join('; ')})` : ''
      const note = `VMs by QEMU, ${how}: a guest booted and answered in ${ms} ms${because}`
      keepVerdict(kernelCacheDir, key, { accel, note, tscKhz })
      return { found: makers, note }
    } catch (error) {
      reasons.push(`${accel.toUpperCase()}: ${messageOf(error)}`)
    }
  }
  return { note: `no VM boots here: ${reasons.join('; ')}` }
}

const probesDir = (options: ProbeOptions) => join(options.dir, 'probe')

function probePlace(options: ProbeOptions, pid: string): VmPlace {
  const dir = join(probesDir(options), pid)
  return new VmPlace({ dir, hostId: `${options.hostId}-probe-${pid}` })
}

async function clearProbe(options: ProbeOptions, pid: string): Promise<void> {
  const place = probePlace(options, pid)
  await clearVm(place, probeId, { keepRoot: false })
  removeUnusedParent(place.cgroups, place.cgroupParent)
  rmSync(join(probesDir(options), pid), { recursive: true, force: true, maxRetries: 5 })
}

/** A guest that nobody greets waits for ever: those of host processes that died meanwhile are ended. */
async function clearOldProbes(options: ProbeOptions): Promise<void> {
  if (!existsSync(probesDir(options))) return
  for (const pid of readdirSync(probesDir(options))) {
    if (processStartTime(Number(pid)) === undefined) await clearProbe(options, pid)
  }
}

/** Boots PID 1 alone, as a machine is booted, and waits for its word. */
async function bootOnce(options: ProbeOptions, makers: VmMakers): Promise<number> {
  const place = probePlace(options, String(process.pid))
  const at = place.folder(probeId)
  mkdirSync(at.dir, { recursive: true })
  const begun = performance.now()
  let session: VmSession | undefined
  try {
    const record = probeRecord(place, makers)
    writeVmRecord(at, record)
    const means = { place, makers, onGone: () => {} }
    const vmm = await launch(means, record, prepare(means, record, { incoming: false }), undefined)
    const { pid } = vmm.identity
    const talk = await VmSession.open({ at, record, pid, log: quiet, onOver: () => {} })
    session = talk
    const alive = orGone(vmm, () => bootFailure(place, record, talk))
    await Promise.race([talk.guest.connected(bootTimeoutMs[makers.accel]), alive]).catch(
      (error: unknown) => {
        throw error instanceof Fault && error.code === 'timeout'
          ? bootFailure(place, record, session, 'no answer of its guest')
          : error
      },
    )
    return Math.round(performance.now() - begun)
  } finally {
    await session?.close()
    await clearProbe(options, String(process.pid))
  }
}

const probeShape = (accel: Accel) => ({ accel, cpus: 1, memoryMb: 128, disks: false, volumes: 0 })

function probeRecord(place: VmPlace, makers: VmMakers): VmRecord {
  const shape = probeShape(makers.accel)
  return {
    id: probeId,
    instanceId: '',
    bootId,
    uid: place.takeUid(probeId),
    squashfsPath: '/dev/null',
    kernelPath: makers.kernel.elfPath,
    initramfsPath: makers.kernel.initramfsPath,
    makers: makers.text,
    args: qemuArgs({ ...shape, tscKhz: makers.tscKhz }),
    volumes: [],
    cpus: 1,
    cpuKind: 'performance',
    memoryMb: shape.memoryMb,
    netnsPath: '/proc/self/ns/net',
    hasNic: false,
    logFile: join(place.folder(probeId).dir, 'output.log'),
    cpuUsecBefore: 0,
    started: false,
  }
}
