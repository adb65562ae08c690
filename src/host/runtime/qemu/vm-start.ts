import { randomBytes } from 'node:crypto'
import { mkdirSync } from 'node:fs'
import { cpus } from 'node:os'
import { systemClock } from '#core/clock.ts'
import { Fault, isFault, messageOf } from '#core/fault.ts'
import type { GuestKernel, GuestRun } from '#host/guest/index.ts'
import { rootGbDefault } from '#spec/rootfs.ts'
import { diskFull } from '#sys/disk-full.ts'
import { removeFile, tailOfFile } from '#sys/files.ts'
import type { StartSpec } from '../driver.ts'
import { bootId } from '../machine-folder.ts'
import { devices, qemuArgs, type Accel } from './qemu-args.ts'
import { Qmp } from './qmp.ts'
import { makeUpper } from './upper-disk.ts'
import { joinCgroup, makeCgroup, setWeight } from './vm-cgroup.ts'
import { writeVmRecord, type VmRecord } from './vm-folder.ts'
import { socketPath, spawnVmm, type VmmProcess } from './vm-launch.ts'
import { joinNetwork, readNetwork, tap, type VmLink, type VmNetwork } from './vm-network.ts'
import type { VmPlace } from './vm-place.ts'
import type { VmSession } from './vm-session.ts'
import type { VmSessions } from './vm-sessions.ts'

/** How VMs are made on this host. */
export interface VmMakers {
  accel: Accel
  kernel: GuestKernel
  /** For TCG: of this host's processor, 0 where it has no such counter. */
  tscKhz?: number | undefined
  /** Names kernel, QEMU, accelerator and protocol: what a snapshot depends on. Its PID 1 is in its memory, whatever is built since. */
  text: string
}

/** Until the guest has answered, and until its command runs. TCG on a busy host is slow, and not dead. */
export const patienceMs: Record<Accel, number> = { kvm: 20_000, tcg: 120_000 }
const openFiles = { resource: 7, soft: 10_240n, hard: 1_048_576n }
const sysctls = {
  'net.ipv4.ip_unprivileged_port_start': '0',
  'net.ipv4.ping_group_range': '0 2147483647',
}

export interface VmStart {
  place: VmPlace
  sessions: VmSessions
  spec: StartSpec
  makers: VmMakers
  netReady: Promise<unknown>
  bootTimeoutMs?: number | undefined
  /** Runs what keeps processors busy, when it may. */
  inTurn<T>(work: () => Promise<T>): Promise<T>
  /** The VMM is gone. */
  onGone(): void
}

/**
 * Starts a machine from nothing: record, disk, network, VMM, PID 1, command. Stops at the first step that fails; whoever
 * calls clears up. Returns how long each step took, for the log.
 */
export async function startVm(start: VmStart): Promise<string> {
  const { place, spec } = start
  if (spec.argv.length === 0) {
    throw new Fault(
      'invalid',
      'the image names no command; set ENTRYPOINT or CMD in the Dockerfile, or a process in fly.toml',
    )
  }
  const at = place.folder(spec.id)
  const begun = performance.now()
  const steps: string[] = []
  const mark = (name: string) => steps.push(`${name} ${Math.round(performance.now() - begun)}`)
  mkdirSync(at.dir, { recursive: true, mode: 0o700 })
  removeFile(at.endFile)
  const record = newRecord(start)
  writeVmRecord(at, record)
  const { templates } = place.folders
  const sizeMb = spec.rootSizeMb ?? rootGbDefault * 1024
  await Promise.all([
    makeUpper(at.upper, { templates, sizeMb, keep: spec.keepRoot === true }),
    start.netReady,
  ])
  mark('disk')
  // Not before: a disk that its machine made hard to check is no reason for others to wait.
  await start.inTurn(() => boot(start, record, mark))
  return steps.join(', ')
}

async function boot(start: VmStart, record: VmRecord, mark: (step: string) => void): Promise<void> {
  const { place, sessions, spec, makers } = start
  const network = await readNetwork(spec.netnsPath)
  record.hasNic = network !== undefined
  record.args = qemuArgs(shapeOf(start, network))
  const vmm = await launch(start, record, prepare(start, record, { incoming: false }), network)
  mark('vmm')
  const session = await sessions.open(spec.id)
  if (!session) throw new Fault('internal', 'a VMM without its record')
  const booted = new AbortController()
  const gone = orGone(vmm, () => bootFailure(place, record, session))
  const alive = Promise.race([gone, orDiskFull(vmm, booted.signal)])
  const timeoutMs = start.bootTimeoutMs ?? patienceMs[makers.accel]
  try {
    await Promise.race([session.guest.connected(timeoutMs), alive])
    mark('hello')
    await Promise.race([session.guest.run(guestRun(spec, network), timeoutMs), alive])
  } catch (error) {
    if (!isFault(error, 'timeout')) throw error
    throw bootFailure(place, record, session, messageOf(error))
  } finally {
    booted.abort()
  }
  setWeight(place.cgroups, place.cgroupPath(spec.id), record)
  record.started = true
  writeVmRecord(place.folder(spec.id), record)
  mark('command')
}

function newRecord({ place, spec, makers }: VmStart): VmRecord {
  return {
    id: spec.id,
    instanceId: spec.instanceId,
    bootId,
    uid: place.takeUid(spec.id),
    squashfsPath: spec.squashfsPath,
    kernelPath: makers.kernel.elfPath,
    initramfsPath: makers.kernel.initramfsPath,
    makers: makers.text,
    args: [],
    volumes: spec.mounts,
    cpus: spec.limits.cpus,
    cpuKind: spec.limits.cpuKind,
    memoryMb: spec.limits.memoryMb,
    netnsPath: spec.netnsPath,
    hasNic: false,
    logFile: spec.logFile,
    cpuUsecBefore: 0,
    started: false,
  }
}

function shapeOf({ spec, makers }: VmStart, network: VmNetwork | undefined) {
  // More emulated processors than real ones only wait for each other.
  const most = makers.accel === 'tcg' ? cpus().length : Infinity
  return {
    accel: makers.accel,
    cpus: Math.max(1, Math.min(Math.ceil(spec.limits.cpus), most)),
    memoryMb: spec.limits.memoryMb,
    tscKhz: makers.tscKhz,
    disks: true,
    volumes: spec.mounts.length,
    ...(network ? { nic: { tap, mac: network.mac } } : {}),
  }
}

export interface Launched {
  vmm: VmmProcess
  /** Its cgroup holds it. */
  joined: Promise<void>
}

/** Starts a launcher, which waits for the word while its place is made around it. */
export function prepare(
  { place, makers }: Pick<VmStart, 'place' | 'makers'>,
  record: VmRecord,
  options: { incoming: boolean },
): Launched {
  const path = place.cgroupPath(record.id)
  makeCgroup(place.cgroups, path, { ...record, accel: makers.accel })
  const vmm = spawnVmm(place.folder(record.id), record, { accel: makers.accel, ...options })
  const joined = joinCgroup(place.cgroups, path, vmm.identity.pid)
  joined.catch(() => {}) // Waited for before the word.
  return { vmm, joined }
}

/** The record names the VMM, and its cgroup holds it, before it may act. */
export async function launch(
  start: Pick<VmStart, 'place' | 'onGone'>,
  record: VmRecord,
  { vmm, joined }: Launched,
  link: VmLink | undefined | Promise<VmLink | undefined>,
): Promise<VmmProcess> {
  void vmm.gone.then(() => start.onGone())
  record.vmm = vmm.identity
  record.bootId = bootId
  writeVmRecord(start.place.folder(record.id), record)
  const join = async () => {
    const found = await link
    if (found) await joinNetwork(record.netnsPath, found, record.uid)
  }
  await Promise.all([joined, join()])
  vmm.go()
  return vmm
}

/** Never resolves: rejects when the VMM is gone. */
export function orGone(vmm: VmmProcess, why: () => Fault): Promise<never> {
  const gone = vmm.gone.then(() => {
    throw why()
  })
  gone.catch(() => {}) // Also when nobody waits any more.
  return gone
}

/** A guest that has booted by then is not looked at; so often is one that has not. */
const lookEveryMs = 2_000

/** Rejects when the VM stands still because its host's disk is full, of which its guest can tell nobody; else never settles. */
function orDiskFull(vmm: VmmProcess, booted: AbortSignal): Promise<never> {
  const full = Promise.withResolvers<never>()
  const look = async () => {
    for (;;) {
      await systemClock.sleep(lookEveryMs, booted)
      const status = await askStatus(vmm).catch(() => undefined) // One that is deaf is waited for as others.
      if (status === 'io-error') return full.reject(diskFull())
    }
  }
  look().catch(() => {}) // It has booted.
  full.promise.catch(() => {}) // Also when nobody waits any more.
  return full.promise
}

async function askStatus({ identity }: VmmProcess): Promise<string> {
  const qmp = await Qmp.open(socketPath(identity.pid, 'qmp'), lookEveryMs)
  return qmp.status().finally(() => qmp.close())
}

export function bootFailure(
  place: VmPlace,
  record: VmRecord,
  session: VmSession | undefined,
  because = 'its monitor ended',
): Fault {
  const at = place.folder(record.id)
  const words = [tailOfFile(at.vmmLog, 500).trim(), session?.consoleWords.slice(-500) ?? '']
  const said = words.filter(Boolean).join('; ') || 'nothing was said'
  return new Fault(
    'native_failed',
    `the VM of machine ${record.id} did not come up: ${because}: ${said}`,
  )
}

/** What PID 1 is told of the machine. */
export function guestRun(spec: StartSpec, network: VmNetwork | undefined): GuestRun {
  const device = 'eth0'
  return {
    argv: spec.argv,
    env: spec.env,
    user: spec.user,
    workdir: spec.workdir,
    hostname: spec.hostname,
    hosts: spec.hosts,
    resolvConf: spec.resolvConf,
    files: spec.files,
    ...(spec.tty ? { tty: { rows: 24, columns: 80 } } : {}),
    rlimits: [openFiles],
    vm: {
      rootDevice: devices.image,
      upperDevice: devices.upper,
      volumes: spec.mounts.map(({ path }, i) => ({ device: devices.volume(i), path })),
      addresses: (network?.addresses ?? []).map((address) => ({ device, address })),
      routes: (network?.routes ?? []).map((route) => ({ device, ...route })),
      ...(network ? { mtu: network.mtu } : {}),
      sysctls,
      ...(spec.limits.swapMb ? { swapMb: spec.limits.swapMb } : {}),
      nowMs: systemClock.now(),
      entropy: randomBytes(64),
    },
  }
}
