import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Fault } from '#core/fault.ts'
import { limits } from '#core/limits.ts'
import { tailOfFile } from '#sys/files.ts'
import { run } from '#sys/process.ts'
import { ociConfig } from './bundle.ts'
import { adoptSupervisor, countsSwap } from './cgroup.ts'
import { spawnConmon, type Conmon } from './conmon.ts'
import type { ContainerPlace } from './container-place.ts'
import type { StartSpec } from './driver.ts'
import { bootId, makeFolders, writeRecord, type MachineRecord } from './machine-folder.ts'
import { mountRoot } from './mounts.ts'
import { prepareRoot } from './prepare-root.ts'

const createTimeoutMs = 30_000

export interface ContainerStart {
  place: ContainerPlace
  spec: StartSpec
  runtime: string
  /** Mounts the image unless it is, and returns where. */
  mountImage(): Promise<string>
  /** Resolves when the network namespace is there. */
  netReady: Promise<unknown>
  /** conmon is gone. */
  onGone(): void
}

/**
 * Starts a machine from nothing: record, conmon, image, overlay, bundle, create, start. Stops at the first step that
 * fails; whoever calls clears up. Returns how long each step took, for the log.
 */
export async function startContainer(start: ContainerStart): Promise<string> {
  const { place, spec, runtime } = start
  const at = place.folder(spec.id)
  const steps = stopwatch()
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
  const conmon = beginConmon(start, record)
  const parent = `${place.cgroupParent}/.supervisors`
  const adopted = adoptSupervisor(place.cgroups, parent, conmon.identity.pid)
  adopted.catch(() => {}) // Waited for below, unless the start fails before.
  steps.mark('conmon')
  const image = await start.mountImage()
  steps.mark('image')
  await mountRoot(at, image)
  steps.mark('overlay')
  writeBundle(start)
  steps.mark('bundle')
  await Promise.all([start.netReady, adopted])
  steps.mark('network and cgroup')
  record.container = await conmon.create()
  writeRecord(at, record)
  steps.mark('create')
  await letGo(start)
  record.started = true
  writeRecord(at, record)
  steps.mark('start')
  return steps.text()
}

/** The record names conmon before conmon may act. */
function beginConmon(start: ContainerStart, record: MachineRecord): Conmon {
  const { place, spec } = start
  const at = place.folder(spec.id)
  const conmon = spawnConmon({
    id: spec.id,
    runtime: record.runtime,
    stateDir: place.folders.state,
    bundle: at.bundle,
    pidFile: at.pidFile,
    persistDir: at.persist,
    exitsDir: place.folders.exits,
    logFile: spec.logFile,
    tty: spec.tty,
    logBytesMax: limits.logBytesPerMachineMax,
    timeoutMs: createTimeoutMs,
    onGone: () => start.onGone(),
  })
  record.conmon = conmon.identity
  writeRecord(at, record)
  return conmon
}

function writeBundle({ place, spec }: ContainerStart): void {
  const at = place.folder(spec.id)
  const prepared = prepareRoot(spec, at.root)
  const config = ociConfig({
    spec,
    rootPath: at.root,
    cgroupPath: place.cgroupPath(spec.id),
    swapIsCounted: countsSwap(place.cgroups),
    ...prepared,
  })
  writeFileSync(join(at.bundle, 'config.json'), JSON.stringify(config), { mode: 0o600 })
}

async function letGo({ place, spec, runtime }: ContainerStart): Promise<void> {
  const args = ['--root', place.folders.state, 'start', spec.id]
  const result = await run(runtime, args, { timeoutMs: createTimeoutMs })
  if (result.code === 0) return
  const words = result.stderr.trim() || tailOfFile(spec.logFile, 500)
  throw new Fault('native_failed', `machine ${spec.id} could not start: ${words}`)
}

function stopwatch() {
  const parts: string[] = []
  let before = performance.now()
  return {
    mark(name: string) {
      const now = performance.now()
      parts.push(`${name} ${(now - before).toFixed(1)}`)
      before = now
    },
    text: () => parts.join(', '),
  }
}
