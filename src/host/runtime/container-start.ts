import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, openSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Fault } from '#core/fault.ts'
import { protocolVersion } from '#host/guest/index.ts'
import { readTextFile, tailOfFile } from '#sys/files.ts'
import { processStartTime, type ProcessIdentity } from '#sys/process.ts'
import { initPath, ociConfig } from './bundle.ts'
import { countsSwap } from '#sys/cgroup.ts'
import type { ContainerPlace } from './container-place.ts'
import type { StartSpec } from './driver.ts'
import { listenForGuest, type GuestListener } from './guest-socket.ts'
import type { MachineChannel } from './machine-channel.ts'
import {
  bootId,
  makeFolders,
  writeRecord,
  type MachineFolder,
  type MachineRecord,
} from './machine-folder.ts'
import { mountRoot } from './mounts.ts'
import { prepareRoot } from './prepare-root.ts'

const createTimeoutMs = 30_000
/** The first that is handed down behind standard input, output and error. */
const listenerFd = 3

export interface ContainerStart {
  place: ContainerPlace
  spec: StartSpec
  runtime: string
  /** Mounts the image unless it is, and returns where. */
  mountImage(): Promise<string>
  /** Resolves when the network namespace is there. */
  netReady: Promise<unknown>
  openChannel(record: MachineRecord): Promise<MachineChannel>
}

/**
 * Starts a machine from nothing: record, image, overlay, bundle, PID 1 in its container, and the command by PID 1. Stops
 * at the first step that fails; whoever calls clears up. Returns how long each step took, for the log.
 */
export async function startContainer(start: ContainerStart): Promise<string> {
  const { place, spec, runtime } = start
  const at = place.folder(spec.id)
  const steps = stopwatch()
  const record: MachineRecord = {
    id: spec.id,
    instanceId: spec.instanceId,
    bootId,
    runtime,
    protocol: protocolVersion,
    logFile: spec.logFile,
    lastingRoot: spec.lastingRoot === true,
    started: false,
    squashfsPath: spec.squashfsPath,
    memoryMb: spec.limits.memoryMb,
  }
  makeFolders(at, record)
  const image = await start.mountImage()
  steps.mark('image')
  await mountRoot(at, image, { lasting: spec.lastingRoot === true })
  steps.mark('overlay')
  const prepared = prepareRoot(spec, at.root)
  writeBundle(start, prepared.volumes)
  const listener = await listenForGuest(at.dir)
  steps.mark('bundle')
  const [created, channel] = await begin(start, record, listener)
  record.container = created
  writeRecord(at, record)
  steps.mark('network and create')
  const { env, workdir } = prepared
  const tty = spec.tty ? { tty: { rows: 24, columns: 80 } } : {}
  await channel.guest.run(
    { argv: spec.argv, env, user: spec.user, workdir, ...tty },
    createTimeoutMs,
  )
  record.started = true
  writeRecord(at, record)
  steps.mark('start')
  return steps.text()
}

/** The container, and meanwhile the channel to it: PID 1 finds the host's first word waiting. */
async function begin(
  start: ContainerStart,
  record: MachineRecord,
  listener: GuestListener,
): Promise<[ProcessIdentity, MachineChannel]> {
  let creating: Promise<ProcessIdentity>
  try {
    await start.netReady
    creating = createContainer(start, listener)
  } finally {
    listener.handOver()
  }
  return Promise.all([creating, start.openChannel(record)])
}

function writeBundle(
  { place, spec }: ContainerStart,
  volumes: { source: string; path: string }[],
): void {
  const at = place.folder(spec.id)
  const config = ociConfig({
    spec,
    rootPath: at.root,
    cgroupPath: place.cgroupPath(spec.id),
    swapIsCounted: countsSwap(place.cgroups),
    argv: [initPath, '--listen-fd', String(listenerFd)],
    volumes,
  })
  writeFileSync(join(at.bundle, 'config.json'), JSON.stringify(config), { mode: 0o600 })
}

/** Resolves with PID 1, which waits for the command. It keeps our error file open: a pipe would never end. */
async function createContainer(
  { place, spec, runtime }: ContainerStart,
  listener: GuestListener,
): Promise<ProcessIdentity> {
  const at = place.folder(spec.id)
  const args = ['--root', place.folders.state, 'run', '--detach', '--preserve-fds', '1']
  args.push('--pid-file', at.pidFile, '--bundle', at.bundle, spec.id)
  const errors = openSync(at.errorFile, 'w', 0o600)
  try {
    const child = spawn(runtime, args, {
      stdio: ['ignore', 'ignore', errors, listener.fd],
      timeout: createTimeoutMs,
      killSignal: 'SIGKILL',
    })
    const [code] = (await once(child, 'exit')) as [number | null]
    const created = code === 0 ? identityIn(at) : undefined
    if (created) return created
    const words = tailOfFile(at.errorFile, 500).trim() || `${runtime} ended with code ${code}`
    throw new Fault('native_failed', `no container for machine ${spec.id}: ${words}`)
  } finally {
    closeSync(errors)
  }
}

function identityIn(at: MachineFolder): ProcessIdentity | undefined {
  const pid = Number(readTextFile(at.pidFile))
  const startTime = pid > 0 ? processStartTime(pid) : undefined
  return startTime === undefined ? undefined : { pid, startTime }
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
