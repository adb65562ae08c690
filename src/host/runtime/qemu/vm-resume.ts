import { existsSync } from 'node:fs'
import { systemClock } from '#core/clock.ts'
import { Fault, messageOf } from '#core/fault.ts'
import { discard } from '../machine-folder.ts'
import { Qmp } from './qmp.ts'
import { killVmm } from './vm-clear.ts'
import { setWeight } from './vm-cgroup.ts'
import type { VmRecord } from './vm-folder.ts'
import { socketPath } from './vm-launch.ts'
import { joinedLinks, readLink } from './vm-network.ts'
import type { VmPlace } from './vm-place.ts'
import { identityOf, isStillRight, type ReadyVmm, type ReadyVmms } from './vm-ready.ts'
import type { VmSessions } from './vm-sessions.ts'
import { readManifest, snapshotFlaw } from './vm-snapshot.ts'
import { judgeLoad } from './vm-tries.ts'
import {
  bootFailure,
  launch,
  orGone,
  patienceMs,
  prepare,
  type Launched,
  type VmMakers,
} from './vm-start.ts'

export interface VmResume {
  place: VmPlace
  sessions: VmSessions
  record: VmRecord
  makers: VmMakers
  netReady: Promise<unknown>
  ready: ReadyVmms
  bootTimeoutMs?: number | undefined
  onGone(): void
}

const endTimeoutMs = 500
/** The last of one whose host's disk was full when it was saved. */
const loadedAs = ['paused', 'prelaunch', 'io-error']

/**
 * Loads the snapshot into a new VMM that stands still, makes the snapshot count no more, and only then lets the VM go
 * on: cut short anywhere, there is either a snapshot or a VM. Then the guest is told. After a Fault the snapshot is there
 * if it is still good, and no VM beside it goes on.
 */
export async function resumeVm(resume: VmResume): Promise<string> {
  const { place, record, makers } = resume
  const at = place.folder(record.id)
  const begun = performance.now()
  const steps: string[] = []
  const mark = (name: string) => steps.push(`${name} ${Math.round(performance.now() - begun)}`)
  const waiting = resume.ready.take(record.id)
  if (!waiting) await killVmm(place, record.id, record) // Of a suspend or a resume that was cut short.
  const flaw = snapshotFlaw(at, record, makers.text)
  if (flaw) {
    discard(place.folders, at.snapshot)
    throw new Fault('native_failed', `the snapshot of machine ${record.id}: ${flaw}`)
  }
  requireFiles(record)
  record.cpuUsecBefore = readManifest(at)?.cpuUsec ?? 0
  asBegunNow(record, makers)
  const ready = await stillRight(resume, waiting)
  const link = async () => {
    await resume.netReady
    return record.hasNic ? readLink(record.netnsPath) : undefined
  }
  const vmm = ready
    ? await launch(resume, record, ready, undefined)
    : await launch(resume, record, prepare(resume, record, { incoming: true }), link())
  mark(ready ? 'let go' : 'launched')
  const gone = orGone(vmm, () => bootFailure(place, record, undefined, 'it did not resume'))
  const timeoutMs = resume.bootTimeoutMs ?? patienceMs[makers.accel]
  let told: Promise<void>
  let isLoaded = false
  try {
    const path = socketPath(vmm.identity.pid, 'qmp')
    const qmp = await Promise.race([Qmp.open(path, timeoutMs), gone])
    mark('begun')
    // The guest was saved with its port open: somebody is there before it looks.
    const opened = resume.sessions.open(record.id)
    opened.catch(() => {}) // Waited for below.
    try {
      await Promise.race([loaded(qmp, timeoutMs), gone])
      isLoaded = true
      mark('loaded')
      const session = await opened
      if (!session) throw new Fault('internal', 'a VM without its record')
      discard(place.folders, at.snapshot)
      // Before it goes on: the first thing that it finds is the time.
      told = session.tellTime(timeoutMs)
      told.catch(() => {}) // Waited for below.
      await qmp.execute('cont')
      mark('goes on')
    } finally {
      qmp.close()
    }
  } catch (error) {
    // How it ended says more than the socket that it closed.
    const end = Promise.race([gone, systemClock.sleep(endTimeoutMs)])
    const cause: unknown = await end.then(
      () => error,
      (how: unknown) => how,
    )
    const lost = isLoaded ? undefined : judgeLoad(place.folders, at)
    if (!lost) throw cause
    throw new Fault('native_failed', `${lost}: ${messageOf(cause)}`)
  }
  await Promise.race([told, gone])
  setWeight(place.cgroups, place.cgroupPath(record.id), record)
  mark('answered')
  return steps.join(', ')
}

/** QEMU wants to be told of files that the guest has long read; those that it began with may be gone. */
function asBegunNow(record: VmRecord, { kernel }: VmMakers): void {
  record.kernelPath = kernel.elfPath
  record.initramfsPath = kernel.initramfsPath
}

/** A launcher that waits for this resume; undefined, and nothing of it is left, when its place is not the machine's any more. */
async function stillRight(
  { place, record, netReady }: VmResume,
  waiting: ReadyVmm | undefined,
): Promise<Launched | undefined> {
  if (!waiting) return undefined
  await netReady
  if (isStillRight(waiting, place.folder(record.id), record)) {
    return { vmm: waiting.vmm, joined: Promise.resolve() }
  }
  await killVmm(place, record.id, record)
  return undefined
}

/** Makes what the next resume of a suspended VM begins with, while nobody waits for it. */
export async function makeReady(
  { place, makers, ready }: Pick<VmResume, 'place' | 'makers' | 'ready'>,
  record: VmRecord,
): Promise<void> {
  asBegunNow(record, makers)
  let links: string | undefined
  if (record.hasNic) {
    const link = await readLink(record.netnsPath)
    links = link && joinedLinks(link, record.uid)
    if (!links) return // The resume has to see to its network.
  }
  try {
    const files = identityOf(place.folder(record.id), record)
    const { vmm, joined } = prepare({ place, makers }, record, { incoming: true })
    await joined
    ready.keep(record.id, { vmm, files, links })
  } catch (error) {
    await killVmm(place, record.id, record)
    throw error
  }
}

/** A snapshot is of use only with the disks that its machine had: they may come back. */
function requireFiles({ id, volumes, squashfsPath }: VmRecord): void {
  const disks = volumes.map(({ source, path }) => ({ file: source, what: `volume at ${path}` }))
  for (const { file, what } of [...disks, { file: squashfsPath, what: 'image' }]) {
    if (existsSync(file)) continue
    throw new Fault(
      'precondition_failed',
      `machine ${id} cannot go on without its ${what}: ${file} is not there; bring it back, or stop the machine, which discards what it has in memory`,
    )
  }
}

async function loaded(qmp: Qmp, timeoutMs: number): Promise<void> {
  const until = performance.now() + timeoutMs
  while (performance.now() < until) {
    const status = await qmp.status()
    if (loadedAs.includes(status)) return
    await systemClock.sleep(1)
  }
  throw new Fault('timeout', `a snapshot was not loaded within ${timeoutMs / 1000} s`)
}
